"""Which search is it? What decides the trials of each search of a study, and its hash."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from sweepctl import paths
from sweepctl.kinds import optional_groups
from sweepctl.ledger import Ledger, SearchRecord
from sweepctl.plan import Plan, canonical, fingerprint, group_of, lasting
from sweepctl.study import Dimension, Search, short_name, value_at, whole_leaf


def search_records(shown: Plan, search: Search) -> list[SearchRecord]:
    """The searches of a study: one per cell of its grid of axes that can be run.

    The key of a search is a hash of what decides which trials it asks: what its cells have in
    common, the space, the objectives, the sampler and its seed, the points it starts with. More
    trials, more of them at once or another reason to stop go on with the same search.

    Args:
        shown: the study's plan, in which each search is shown by one point.
        search: what is searched.
    """
    records: dict[str, SearchRecord] = {}
    for identity in identities(shown, search):
        key = fingerprint(canonical(identity))
        record = SearchRecord(key=key, position=len(records), axes=identity["axes"])
        records.setdefault(key, record)
    return list(records.values())


def identities(shown: Plan, search: Search) -> Iterator[dict[str, Any]]:
    """What decides the trials of each search of a study."""
    study = shown.study
    gridded = [path for factor in study.grid.factors for path in factor.paths]
    cells = {cell.key: cell for cell in shown.cells}
    block = study.study.model_dump(mode="json", by_alias=True)
    asked = {
        key: value
        for key, value in block["search"].items()
        if key not in ("trials", "at_once", "stop") and not (key == "prune" and value is None)
    }
    rules = {key: block[key] for key in ("fixed", "when", "exclude", "only")}
    own_values = _own_values(study.grid.template, search)
    combinations = itertools.product(*(factor.rows for factor in study.grid.factors))
    for rows, placed in zip(combinations, shown.placed, strict=True):
        if not placed.key:
            continue  # this cell of the grid is left out
        axes = dict(zip(gridded, itertools.chain(*rows), strict=True))
        common = copy.deepcopy(lasting(dict(cells[placed.key].config)))
        for path, rule in cells[placed.key].rules.items():
            paths.put(common, path, dict(rule))
        for dimension in search.space:
            paths.remove(common, whole_leaf(dimension.path))
        identity = {"search": asked, "axes": axes, "common": common, "rules": rules}
        yield identity | ({"unsearched": own_values} if own_values else {})


def _own_values(template: Mapping[str, Any], search: Search) -> dict[str, Any]:
    """The study's own values of settings with a condition, path -> value, which trials may have.

    Without those of a group, such as stage 2, that is off wherever their condition does not hold.
    """
    space = {dimension.path: dimension for dimension in search.space}
    groups = optional_groups()

    def goes_with_its_group(dimension: Dimension) -> bool:
        kind = groups.get(group_of(dimension.path) or "")
        return (
            kind is not None
            and not dimension.given_axes
            and all(
                path in kind.switches
                and not space[path].given
                and all(value is None or value in wanted for value in space[path].choices)
                for path, wanted in dimension.given
            )
        )

    return {
        dimension.path: value_at(template, dimension.path)
        for dimension in search.space
        if (dimension.given or dimension.given_axes) and not goes_with_its_group(dimension)
    }


def of_stand_ins(plan: Plan, search: Search, ledger: Ledger) -> str:
    """What to say where an earlier version asked the same searches; "" where none did.

    It trained with the lower end, or the first choice, of a setting whose condition did not hold.
    """
    for identity in identities(plan, search):
        own_values = identity.pop("unsearched", {})
        former = [fingerprint(canonical(identity))]
        if own_values and (count := len(ledger.searches.trials(plan.study_name, former))):
            values = ", ".join(f"{short_name(path)} {said(v)}" for path, v in own_values.items())
            return (
                f"an earlier version made {count} trials of this search and took the first value "
                "of the space where the condition of a setting does not hold; now that is the "
                f"value of the study ({values}), so the search begins again and reuses the tasks "
                "that stay the same"
            )
    return ""


def said(value: Any) -> str:
    """A value of a point in a line of text."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
