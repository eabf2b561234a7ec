"""`temper trace`: where the time of a run goes, what of the machine it uses, and what would help.

`stages` gives times their names, `limits` says what the machine can do at most, `advice` what follows from both; `run`
puts load on an engine and writes it all into one document, `page` draws it.
"""
