"""`./run chaos`: every fault, tried on a private stack under real load, and a ledger of what became of each request.

Read `command.py` first: stack (what runs), clients (who asks), faults (what happens to it), evidence (what was seen),
ledger (whether the promises were kept). It is also a Django app, for the handlers that write down their own runs.
"""
