"""The real brain in a small data centre of its own, in virtual time, from one seed.

`plan` says what there is. `world` runs it: the `Brain` gets only the events that a real shell would hand in, and its
effects change hosts and processes that really hold memory and slots. The tests disturb such worlds and check them.
"""
