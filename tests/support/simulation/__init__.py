"""A small data centre around the brain, in virtual time, from one seed.

`plan` draws what there is: hosts, devices, models, apps, traffic, and how much goes wrong. `world` runs it: the real
`Brain` hears only what a real shell would tell it, and its effects change hosts and processes that really hold memory
and slots. `invariants` look at every event from outside: at what the brain wants done and at what is true in the world,
hardly ever at what the brain believes. `ablations` take safeguards out, to show that the invariants bite.
"""
