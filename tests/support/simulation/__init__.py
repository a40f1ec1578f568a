"""A small data centre around the brain, in virtual time, from one seed.

`plan` draws what there is: hosts, devices, models, apps, traffic, and how much goes wrong. `world` runs it: the real
`Brain` gets only the events that a real shell would hand in, and its effects change hosts and processes that really
hold memory and slots. `invariants` check every event from outside: the effects of the brain and the state of the
world, hardly ever the state of the brain. `ablations` take safeguards out, to show that the invariants notice it.
"""
