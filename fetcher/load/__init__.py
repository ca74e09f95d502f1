"""Measuring a target under load: ``fetcher bench`` and ``fetcher tune``.

    plan          what is to be measured: settings, rounds, rate
    target        whose jobs are fetched, and whether they may be (loopback and private addresses)
    pace          when the next request is due: closed loop, or open loop at a fixed rate
    run           one round: workers that fetch through the project's own transport until the window ends
    meters        what this process used meanwhile: CPU, memory, lag of the event loop
    measurement   what came of it: Round, Setting, Report
    bench         all settings, round by round in turn
    comparison    a report against an older one
    page          a report as one HTML file with plots
    knee          the search for the best concurrency; pure
    tuning        that search on a real target, and what it means for the limits of a config
    amend         puts limits into a config file, and leaves every other byte of it alone

There is no queue, no sink, no retry and no limit of a host: what is measured is the target and the transport.
"""
