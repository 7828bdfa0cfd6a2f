"""From a list of items to Markdown: `store` keeps videos and measurements as files; `making` makes and measures videos,
`reference` the ones to compare with; `results` reduces measurements to the numbers of each row; `table` and `gallery`
show them.

May import the other folders of evaluation but for the walkthrough, and all rooms below.
"""
