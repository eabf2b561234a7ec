"""The fleet: versions, rollouts, and the loop that keeps tuning. It acts on verdicts; `measure` makes them.

The store is the only channel between servers, controllers and people. It knows nothing of HTTP or of terminals.
"""
