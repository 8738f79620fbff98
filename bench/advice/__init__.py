"""`medtransfer advise`: which few ways of transfer are worth running on images that no study has seen.

`knowledge` (rows of earlier runs) and `measured` (a probe on the user's own images) describe tasks by the same `facts`;
`predicted` says what every strategy and backbone would score, and how sure that is; `costs` what it would take;
`shortlist` picks what is worth running; `answer` writes it down. `validated` does all of it for datasets whose answer is
known.
"""
