"""`medtransfer advise`: which few ways of transfer are worth running on images that no study has seen.

`knowledge` (rows of earlier runs) and `measured` (a probe on the user's own images) describe tasks by the same `facts`.
`predicted` says what every strategy and backbone would score, and how sure that is, `likeness` whether the task is
like any that is known, `costs` what running them would take. `sizes` picks the size, `shortlist` what is worth running
at it and `answer` writes it down. `validated` does all of that for datasets whose answer is known, and `verdict` says
what that found. `command` puts the parts together.
"""
