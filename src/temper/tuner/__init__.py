"""Searching profiles: from a workload and a wish in words to a proposal with its proof.

`search` is the study from beginning to end. It measures through an `Evaluator` (`live` with real engines,
`simulated` for rehearsal and proofs) and writes every measurement into the `ledger` before it goes on, so that a
study killed at any moment goes on where it was. It changes no deployment: the proposal is stored and rolled out
by others.
"""
