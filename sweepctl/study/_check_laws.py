"""Do fits and claims speak of what is measured and declared? Names, variables, matches.

Whatever can be known to be wrong before a run is said before a run: a fit of a metric that nobody
measures, a claim about a fit that does not exist, a factor that is no axis, an optimum of a line.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import ValidationError

from sweepctl.columns import DERIVED
from sweepctl.errors import UsageError
from sweepctl.laws import FORMS
from sweepctl.study import _paths
from sweepctl.study._claims import AnyClaim, Fit
from sweepctl.study._model import Study
from sweepctl.study._paths import did_you_mean, not_among
from sweepctl.study._words import in_words
from sweepctl.study._yaml import Document, KeyPath


def check_laws(
    document: Document,
    study: Study,
    axes: Mapping[str, KeyPath],
    *,
    metrics: Collection[str],
    datasets: Collection[str],
) -> None:
    """Add a problem to the document for everything that a fit or claim says wrongly.

    Args:
        document: the study file; its problems are added to.
        study: the study as the models read it.
        axes: places of the study's axes by config path.
        metrics: what the study measures.
        datasets: what it is measured on.
    """

    def known(where: KeyPath, given: str | None, allowed: Collection[str], what: str) -> None:
        if given is not None and given not in allowed:
            message = not_among(given, sorted(allowed) or ["none"], what)
            document.problems.append(document.problem(where, message))

    def measured(
        what: Any, where: KeyPath, *, keys: tuple[str, ...], sets: tuple[str, ...]
    ) -> None:
        for key in keys:
            known((*where, key), getattr(what, key), metrics, _METRIC)
        for key in sets:
            known((*where, key), getattr(what, key), datasets, _DATASET)

    for name, fit in study.fits.items():
        where: KeyPath = ("fits", name)
        measured(fit, where, keys=("metric",), sets=("on", "x_on"))
        _check_fit(document, where, fit, study, metrics, axes)
    for index, claim in enumerate(study.claims):
        where = ("claims", index)
        known((*where, "fit"), getattr(claim, "fit", None), study.fits, "fit")
        for fit_name in getattr(claim, "fits", ()):
            known((*where, "fits"), fit_name, study.fits, "fit")
        if hasattr(claim, "metric"):
            others = tuple(key for key in ("against",) if hasattr(claim, key))
            beside = tuple(key for key in ("against_on",) if hasattr(claim, key))
            measured(claim, where, keys=("metric", *others), sets=("on", *beside))
        _check_claim(document, where, claim, study, axes)


def stated_fit(words: Mapping[str, Any]) -> Fit:
    """A law that was stated in a few words, not in a study file.

    Raises:
        UsageError: the words are no law; says every reason.
    """
    try:
        return Fit.model_validate(dict(words))
    except ValidationError as error:
        said = [
            f"{'.'.join(map(str, one['loc'])) or 'law'}: {in_words(dict(one))}"
            for one in error.errors()
        ]
        raise UsageError("; ".join(said)) from error


_RECORDED = (
    *("tokenizer.p", "tokenizer.q", "tokenizer.c"),
    *("data.resolution", "data.frames", "seed"),
)
"""Numbers of the config that results tell of every cell, axis or not."""
_METRIC = "metric among those this study measures"
_DATASET = "data set among those this study evaluates on"


def _check_fit(
    document: Document,
    where: KeyPath,
    fit: Fit,
    study: Study,
    metrics: Collection[str],
    axes: Mapping[str, KeyPath],
) -> None:
    for number, x in enumerate(fit.xs):
        place: KeyPath = (*where, "x") if isinstance(fit.x, str) else (*where, "x", number)
        if x == fit.metric and fit.x_on in (None, fit.on):
            message = (
                f"the metric {x!r} cannot explain itself; name a number of the config, or another "
                "metric"
            )
            document.problems.append(document.problem(place, message))
        elif x not in metrics:
            _check_variable(document, place, x, study, axes)
    if fit.x_on is not None and not set(fit.xs) & set(metrics):
        message = "x_on goes with an x that is a metric; a value of the config has no data set"
        document.problems.append(document.problem((*where, "x_on"), message))
    for number, factor in enumerate(fit.factors):
        _check_axis(document, (*where, "factors", number), factor, axes)
    _check_match(document, (*where, "where"), fit.where)


def _check_claim(
    document: Document,
    where: KeyPath,
    claim: AnyClaim,
    study: Study,
    axes: Mapping[str, KeyPath],
) -> None:
    for key in ("given", "x"):
        if hasattr(claim, key):
            _check_variable(document, (*where, key), getattr(claim, key), study, axes)
    for key in ("factor", "within"):
        if getattr(claim, key, None) is not None:
            _check_axis(document, (*where, key), getattr(claim, key), axes)
    if hasattr(claim, "where"):
        _check_match(document, (*where, "where"), claim.where)
    name = getattr(claim, "fit", "")
    fit = study.fits.get(name)
    if fit is not None and claim.key not in FORMS[fit.form].claims:
        fitting = [form.name for form in FORMS.values() if claim.key in form.claims]
        message = (
            f"fit {name!r} is {fit.form}, which has no {claim.key}; use {' or '.join(fitting)}"
        )
        document.problems.append(document.problem((*where, "fit"), message))
    if fit is not None and claim.one_variable and len(fit.xs) > 1:
        message = f"fit {name!r} has {len(fit.xs)} variables ({', '.join(fit.xs)}); claim needs one"
        document.problems.append(document.problem((*where, "fit"), message))


def _check_axis(document: Document, where: KeyPath, name: str, axes: Mapping[str, KeyPath]) -> None:
    try:
        path = _paths.resolve(name)
    except ValueError:
        path = name
    if path not in axes:
        known = [_paths.short_name(axis) for axis in axes]
        message = (
            f"{name!r} is not an axis of this study"
            f"{did_you_mean(name, known)}; axes: {', '.join(known) or 'none'}"
        )
        document.problems.append(document.problem(where, message))


def _check_match(document: Document, where: KeyPath, match: Mapping[str, Any]) -> None:
    for name, wanted in match.items():
        try:
            _paths.condition(name, wanted)
        except ValidationError as error:
            said = in_words(dict(error.errors()[0]))
            document.problems.append(document.problem((*where, name), said))
        except ValueError as error:
            document.problems.append(document.problem((*where, name), str(error), prefer_key=True))


def _check_variable(
    document: Document, where: KeyPath, name: str, study: Study, axes: Mapping[str, KeyPath]
) -> None:
    """The x of a fit must be a number that stands in a column of the results."""
    if name in DERIVED:
        return
    try:
        path = _paths.resolve(name)
    except ValueError:
        known = [*DERIVED, *(_paths.short_name(leaf) for leaf in _paths.config_leaves())]
        message = (
            f"unknown variable {name!r}{did_you_mean(name, known)}; "
            f"{', '.join(DERIVED)} or the name of a number in the config"
        )
        document.problems.append(document.problem(where, message))
        return
    if path in _RECORDED:
        return
    try:
        _paths.leaf_adapter(path).validate_python("a text, not a number")
    except ValidationError:
        try:
            _paths.leaf_adapter(path).validate_python(1)
        except ValidationError:
            pass
        else:
            varied = (*axes, *_searched(study))
            if path not in varied:
                told = map(_paths.short_name, dict.fromkeys((*varied, *_RECORDED)))
                message = (
                    f"{path} is no axis of this study, so results do not tell it; make it an axis, "
                    f"or use one of {', '.join((*told, *DERIVED))}"
                )
                document.problems.append(document.problem(where, message))
            return
    document.problems.append(document.problem(where, f"{path} is not a number; a fit needs one"))


def _searched(study: Study) -> tuple[str, ...]:
    """Paths of what a search varies; names that mean nothing are said elsewhere."""
    found = []
    for name in study.search.space if study.search is not None else ():
        try:
            found.append(_paths.resolve(name))
        except ValueError:
            continue
    return tuple(found)
