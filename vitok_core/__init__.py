"""Which parts make a visual tokenizer? The model library under sweepctl, usable without it.

Imports go only downward:

    train | evaluate
    losses | metrics
    tokenizer | features | data
    layers
    spec | protocols | weights
    errors

Nothing is imported here: `spec`, `protocols`, `weights`, `errors` and `data` stay free of torch, so
that planning ten thousand cells does not wait for it.
"""
