"""sweepctl: write a scaling-law study as one file; get runs, a table in SQL and the fitted law.

The package in the order in which a study flows through it:

    paths      dotted paths       values of nested mappings by their path
    plain      plain data         strict JSON, numbers that are not finite
    statistics shared statistics  what plans and analyses both need, without scipy
    errors     what goes wrong    one tree of errors, with exit codes
    columns    what is counted    the typed values of a cell, each with its type and meaning
    kinds      what there is      one record per kind of task; every list of kinds is derived
    clusters   where it may run   the kinds of clusters, one record each
    laws       what can be fitted the forms of laws, one record each
    trackers   who else is told   TensorBoard, W&B, trackio: copies of what attempts tell
    study      what is asked      a file becomes a frozen study; mistakes get file:line:column
    plan       what will run      cells, tasks, fingerprints, sharing, cost; pure
    runs       what is on disk    the files of a task and how they are written
    tasks      what a task does   one function a kind; the only bridge to vitok_core
    pretrained what it needs      pretrained files: which are here, and the right ones
    datasets   what it is fed     data sets: built-in ones, the user's own and their scans
    cluster    where it runs      Dask workers, isolated child processes
    execute    how it runs        the driver's loop: ready, submit, record, retry, resume
    ledger     what happened      the results database: tables, views, queries, upgrades
    search     what is tried next points of a search, by the history of its trials
    analyse    what it means      points, laws, intervals, checks, bands
    claims     does it hold       one test per kind of claim; the verdicts of a study
    paper      what is published  the ViTok paper's numbers and claims, and yours next to them
    design     what it can show   power before a run, predictions, further cells
    figures    how it is drawn    one model of each figure, three renderers
    report     how it reads       tables, laws and verdicts in words, kept fits
    ui         what is looked at  dashboard, report in one file, plot in the terminal
    cli        how it is said     the command line
    start      where it begins    Ctrl-C from the first import on
    secrets    what is not said   text without passwords and tokens: for output, records and logs
"""

__version__ = "0.1.0"
