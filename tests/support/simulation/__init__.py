"""A small data centre around the brain, in virtual time, from one seed.

`plan` draws what there is: hosts, devices, models, apps, traffic, and how much goes wrong. `world` runs it, as
`orchestratord.simulation` has it. `invariants` check every event from outside: the effects of the brain and the state
of the world, hardly ever the state of the brain. `ablations` take safeguards out, to show that the invariants notice
it.
"""
