"""What this project costs, beside other ways to do the same. ``python -m benchmarks`` lists the cases.

    cases/X.py       a goal in a sentence, what is run for it, and the bound that it is to hold
    contenders/X.py  one way to fetch a file of URLs, run as a process of its own
    contest.py       one task for everyone: what the cases share in which peers take part
    measure.py       runs contenders in turns on one core each, and verifies that each got everything
    report.py        figures as tables, and as JSON; pages.py: as a page; results.py, plots.py: as RESULTS.md

A new case or contender is one new file; nothing lists them. All traffic is loopback.
"""
