"""The views: the public interface of the database, column by column.

`VIEWS` documents them (view -> what a row is, column -> meaning) for `sweepctl query --help` and
the docs; a test holds it against the database. The SQL is written once for both databases: where
they differ (JSON), a word is filled in. Views show the cells of a study's newest submission;
`E` may be written in capitals, since SQL does not tell E from e.
"""

from __future__ import annotations

import hashlib

from sqlalchemy.engine import Connection

from sweepctl.columns import COLUMNS, metric_columns
from sweepctl.kinds import measuring_kind

_CELL = {
    "study": "name of the study",
    "cell": "number of the cell in its study, from 1",
}
_VALUES = {one.name: one.meaning for one in COLUMNS.values()} | {
    "axes": "JSON object: axis -> value, every axis of the study",
}
_TASK = {
    "task": "id of the task and name of its run folder",
    "kind": "kind of the task",
}

VIEWS: dict[str, tuple[str, dict[str, str]]] = {
    "v_cell": (
        "One row per cell: its axes, derived values, state, and its final metrics on the first "
        "evaluation data set of the study.",
        _CELL
        | _VALUES
        | {
            "state": "failed: a task failed; blocked: a task it needs failed; running: one runs; "
            "done: all are; pruned: all are, and a search did not promote it to its end; pending "
            "otherwise",
            "until": "training step up to which a search has promoted it, NULL for its end",
            "tasks": "number of its tasks",
            "tasks_done": "number of its tasks that are done",
            "dataset": "data set of the metrics in this row",
            "protocol": "protocol of the metrics in this row",
        }
        | {
            name: f"final {name} on that data set, NULL when not measured"
            for name in metric_columns("reconstruction")
        }
        | {
            "generation_dataset": "data set that samples are compared with, NULL without a DiT",
            "generation_protocol": "protocol of the metrics of samples in this row",
        }
        | {
            name: f"{name} of the samples, on that data set, NULL when not measured"
            for name in metric_columns("generation")
        },
    ),
    "v_cell_task": (
        "One row per cell and stage: which task does it. Tasks may belong to several cells.",
        _CELL
        | {"stage": "what the task is to the cell, for example reconstruct:photos"}
        | _TASK
        | {"state": "pending, blocked, running, done or failed"},
    ),
    "v_task": (
        "One row per task, shared tasks once, with its newest attempt.",
        _TASK
        | {
            "fingerprint": "tagged hash of everything that changes its numbers",
            "label": "what people call it",
            "state": "pending, blocked (a task it needs failed), running, done or failed",
            "failure": "class of the last failure, NULL without one",
            "message": "one line on the last failure",
            "attempts": "attempts so far",
            "failed_attempts": "attempts that failed since the last retry by hand",
            "parameters": "trained parameters",
            "macs": "multiply-accumulates of one sample",
            "flops": "floating point operations expected",
            "disk_bytes": "bytes expected on disk",
            "step": "newest step of the newest attempt",
            "steps": "steps that attempt will do",
            "loss": "newest loss of that attempt",
            "seconds": "wall time of all ended attempts",
            "peak_memory_bytes": "largest resident size of any attempt",
            "host": "host of the newest attempt",
            "device": "device of the newest attempt",
            "predicted_s": "seconds the task was expected to take when that attempt began",
            "code": "hash of the code of the newest attempt",
            "log": "log file of the newest attempt",
            "created_at": "when it was first recorded, UTC",
            "finished_at": "when it became done or failed, UTC",
        },
    ),
    "v_metric": (
        "One row per measured value and cell; a value of a shared task appears for each cell.",
        _CELL
        | _VALUES
        | {"stage": "what the measuring task is to the cell"}
        | _TASK
        | {
            "name": "name of the metric",
            "dataset": "data set it was measured on",
            "protocol": "protocol it was measured under; never mix two",
            "step": "training step, NULL for the end of training",
            "value": "the number, in the metric's unit",
            "n": "samples behind it",
            "se": "standard error of the value, NULL where none is known",
        },
    ),
    "v_cost": (
        "One row per study and kind of task: what it costs. Shared tasks count in each study.",
        {
            "study": "name of the study",
            "kind": "kind of the tasks",
            "tasks": "number of tasks",
            "tasks_done": "number of tasks that are done",
            "attempts": "number of attempts",
            "flops": "floating point operations expected of all tasks",
            "flops_done": "floating point operations counted in finished results",
            "seconds": "wall time of all ended attempts",
            "seconds_predicted": "seconds predicted for finished tasks, of those that had a "
            "prediction and took one attempt",
            "seconds_taken": "seconds that those tasks took",
            "seconds_lost": "wall time of attempts that failed or whose driver went away",
            "peak_memory_bytes": "largest resident size of any attempt",
            "disk_bytes": "bytes expected on disk",
            "file_bytes": "bytes of the files of finished results",
        },
    ),
    "v_lineage": (
        "One row per task and each task it was made from, however far back.",
        _TASK
        | {
            "ancestor": "id of a task it was made from",
            "ancestor_kind": "kind of that task",
            "depth": "steps between them, 1 for a parent",
        },
    ),
    "v_fit": (
        "One row per fit and condition: the newest result of `sweepctl fit`; claims are named "
        "`claim: NAME`.",
        {
            "study": "name of the study",
            "fit": "name of the fit",
            "number": "which of the different results that were recorded under its name, from 1",
            "created_at": "when it was recorded, UTC",
            "condition": "what `fit --where` said, empty for all cells",
            "law": "the fitted law as an equation, NULL for a claim and where there is none",
            "n": "number of configurations",
            "slope": "slope per doubling of x",
            "slope_low": "lower end of its 95 % interval",
            "slope_high": "upper end",
            "r2": "share of the variance explained",
            "folder": "where `fit --save` has kept its files, NULL when it was not asked to",
            "result": "JSON: coefficients, intervals, tests, verdicts",
        },
    ),
    "v_trial": (
        "One row per trial of a search, in the order in which they were asked. A trial is a cell; "
        "its numbers are those of v_cell.",
        {
            "study": "name of the study",
            "search": "key of the search; there is one in each cell of the grid of axes",
            "trial": "number of the trial in its search, from 0",
            "cell": "number of its cell, NULL when no cell could be made of it",
            "point": "JSON object: path -> value; where the condition of a setting does not hold, "
            "the value that its cell has",
            "why_not": "why no cell could be made of it, empty when there is one",
            "asked_at": "when it was recorded, UTC",
        },
    ),
    "v_fitted": (
        "One row per configuration of a training, device and number of processes: what fitted.",
        {
            "configuration": "hash of everything that decides how much memory the training takes",
            "kind": "kind of the task",
            "task": "task that found it out last",
            "label": "what people call that task",
            "device_name": "kind of device",
            "memory_bytes": "memory of the device, 0 for a CPU",
            "ranks": "processes that shared a step",
            "micro_batch": "samples that were in memory together, NULL for all of a process",
            "recompute": "whether activations were recomputed",
            "peak_bytes": "most memory of the device that it took, NULL before its end, on a CPU",
            "free_bytes": "memory of the device that was free when it began, NULL on a CPU",
            "seen_at": "when it was found out, UTC",
        },
    ),
    "v_reference": (
        "One row per number that the ViTok paper published, plotted or printed. Facts to compare "
        "with; what the paper does not state is NULL.",
        {
            "id": "number of the row in the published list",
            "source": "where it was read: the paper, its first version, or its project page",
            "place": "figure or table",
            "figure": "number of the figure, NULL for a table",
            "kind": "reconstruction, generation, or what else the number is about",
            "dataset": "data set it was measured on",
            "variant": "tokenizer as the paper calls it, for example S-B/16",
            "encoder": "size of the encoder",
            "decoder": "size of the decoder",
            "encoder_parameters": "parameters of the encoder, as printed in table 1",
            "decoder_parameters": "parameters of the decoder, as printed in table 1",
            "resolution": "height and width, pixels",
            "frames": "frames of a sample, 1 for images",
            "q": "temporal stride, frames",
            "p": "spatial patch size, pixels",
            "c": "channels of the code",
            "tokens": "tokens of a code, L",
            "E": "floating point numbers of a code, E = L * c",
            "setting": "what else the paper says about the run, for example the stage",
            "generator": "model that generated, for generation",
            "cfg": "guidance scale of the generation",
            "name": "name of the metric, as in v_metric",
            "value": "the number, in the metric's unit",
            "value_high": "upper end, where a range is printed",
            "n": "samples behind it, where stated",
            "protocol": "always paper: these numbers never share a fit with measured ones",
            "note": "remark on the number",
        },
    ),
}
"""The public interface: view -> (what a row is, {column: meaning})."""

BLOCKED = """blocked(task) AS (
    SELECT d.task FROM sweep_dependency d
      JOIN sweep_task t ON t.fingerprint = d.parent WHERE t.state = 'failed'
    UNION
    SELECT d.task FROM sweep_dependency d JOIN blocked b ON d.parent = b.task
)"""
"""The tasks with a failed ancestor, as a common table expression for WITH RECURSIVE."""

_STATE = "CASE WHEN t.state = 'pending' AND b.task IS NOT NULL THEN 'blocked' ELSE t.state END"

_CELL_VALUES = ", ".join(
    [*("c.e AS {E}" if name == "E" else f"c.{name}" for name in COLUMNS), "{axes} AS axes"]
)

_SAMPLING = measuring_kind("generation").name

_SELECTS = {
    "v_cell": f"""WITH RECURSIVE {BLOCKED},
standing AS (
    SELECT x.study, x.cell, count(*) AS tasks,
        sum(CASE WHEN t.state = 'done' THEN 1 ELSE 0 END) AS done,
        sum(CASE WHEN t.state = 'failed' THEN 1 ELSE 0 END) AS failed,
        sum(CASE WHEN t.state = 'running' THEN 1 ELSE 0 END) AS running,
        sum(CASE WHEN t.state = 'pending' AND b.task IS NOT NULL THEN 1 ELSE 0 END) AS blocked
    FROM sweep_cell_task x
    JOIN sweep_task t ON t.fingerprint = x.task
    LEFT JOIN blocked b ON b.task = t.fingerprint
    GROUP BY x.study, x.cell
),
final AS (
    SELECT x.study, x.cell, m.protocol, m.name, m.value
    FROM sweep_cell k
    JOIN sweep_cell_task x ON x.study = k.study AND x.cell = k.key
    JOIN sweep_task t ON t.fingerprint = x.task AND t.kind <> '{_SAMPLING}'
    JOIN sweep_metric m ON m.task = x.task AND m.dataset = k.dataset AND m.step = -1
    WHERE k.is_current
),
chosen AS (SELECT study, cell, min(protocol) AS protocol FROM final GROUP BY study, cell),
measured AS (
    SELECT f.study, f.cell, f.protocol,
        {{metrics}}
    FROM final f
    JOIN chosen h ON h.study = f.study AND h.cell = f.cell AND h.protocol = f.protocol
    GROUP BY f.study, f.cell, f.protocol
),
sampled AS (
    SELECT x.study, x.cell, max(f.protocol) AS protocol,
        {{samples}}
    FROM sweep_cell k
    JOIN sweep_cell_task x ON x.study = k.study AND x.cell = k.key
    JOIN sweep_task t ON t.fingerprint = x.task AND t.kind = '{_SAMPLING}'
    JOIN sweep_metric f ON f.task = x.task AND f.dataset = k.generation_dataset AND f.step = -1
    WHERE k.is_current
    GROUP BY x.study, x.cell
)
SELECT c.study, c.number AS cell, {_CELL_VALUES},
    CASE WHEN s.failed > 0 THEN 'failed' WHEN s.blocked > 0 THEN 'blocked'
        WHEN s.running > 0 THEN 'running' WHEN s.done < s.tasks THEN 'pending'
        WHEN s.done = s.tasks AND c.until IS NULL THEN 'done' WHEN s.done = s.tasks THEN 'pruned'
        ELSE 'pending' END AS state,
    c.until,
    coalesce(s.tasks, 0) AS tasks, coalesce(s.done, 0) AS tasks_done,
    c.dataset, m.protocol, {{columns}},
    c.generation_dataset, g.protocol AS generation_protocol, {{sample_columns}}
FROM sweep_cell c
LEFT JOIN standing s ON s.study = c.study AND s.cell = c.key
LEFT JOIN measured m ON m.study = c.study AND m.cell = c.key
LEFT JOIN sampled g ON g.study = c.study AND g.cell = c.key
WHERE c.is_current""",
    "v_cell_task": f"""WITH RECURSIVE {BLOCKED}
SELECT c.study, c.number AS cell, x.stage, t.id AS task, t.kind, {_STATE} AS state
FROM sweep_cell c
JOIN sweep_cell_task x ON x.study = c.study AND x.cell = c.key
JOIN sweep_task t ON t.fingerprint = x.task
LEFT JOIN blocked b ON b.task = t.fingerprint
WHERE c.is_current""",
    "v_task": f"""WITH RECURSIVE {BLOCKED},
spent AS (
    SELECT task, sum(seconds) AS seconds, max(peak_memory_bytes) AS peak_memory_bytes
    FROM sweep_attempt GROUP BY task
)
SELECT t.id AS task, t.kind, t.fingerprint, t.label, {_STATE} AS state, t.failure, t.message,
    t.attempts, t.failed_attempts, t.parameters, t.macs, t.flops, t.disk_bytes,
    a.step, a.steps, a.loss, coalesce(s.seconds, 0) AS seconds,
    coalesce(s.peak_memory_bytes, 0) AS peak_memory_bytes,
    a.host, a.device, a.predicted_s, a.code, a.log, t.created_at, t.finished_at
FROM sweep_task t
LEFT JOIN blocked b ON b.task = t.fingerprint
LEFT JOIN sweep_attempt a ON a.task = t.fingerprint AND a.number = t.attempts
LEFT JOIN spent s ON s.task = t.fingerprint""",
    "v_metric": f"""SELECT c.study, c.number AS cell, {_CELL_VALUES},
    x.stage, t.id AS task, t.kind, m.name, m.dataset, m.protocol,
    nullif(m.step, -1) AS step, m.value, m.n, m.se
FROM sweep_cell c
JOIN sweep_cell_task x ON x.study = c.study AND x.cell = c.key
JOIN sweep_task t ON t.fingerprint = x.task
JOIN sweep_metric m ON m.task = x.task
WHERE c.is_current""",
    "v_cost": """WITH used AS (
    SELECT DISTINCT c.study, x.task
    FROM sweep_cell c JOIN sweep_cell_task x ON x.study = c.study AND x.cell = c.key
    WHERE c.is_current
),
spent AS (
    SELECT task, count(*) AS attempts, sum(seconds) AS seconds, max(peak_memory_bytes) AS peak,
        sum(CASE WHEN state IN ('failed', 'lost') THEN seconds ELSE 0 END) AS lost
    FROM sweep_attempt GROUP BY task
),
kept AS (SELECT task, sum(bytes) AS bytes FROM sweep_file GROUP BY task)
SELECT u.study, t.kind, count(*) AS tasks,
    sum(CASE WHEN t.state = 'done' THEN 1 ELSE 0 END) AS tasks_done,
    sum(coalesce(s.attempts, 0)) AS attempts, sum(t.flops) AS flops,
    sum(coalesce(r.flops, 0)) AS flops_done, sum(coalesce(s.seconds, 0)) AS seconds,
    sum(CASE WHEN t.result_attempt = 1 AND r.predicted_s > 0 THEN r.predicted_s ELSE 0 END)
        AS seconds_predicted,
    sum(CASE WHEN t.result_attempt = 1 AND r.predicted_s > 0 THEN r.seconds ELSE 0 END)
        AS seconds_taken,
    sum(coalesce(s.lost, 0)) AS seconds_lost, max(coalesce(s.peak, 0)) AS peak_memory_bytes,
    sum(t.disk_bytes) AS disk_bytes, sum(coalesce(k.bytes, 0)) AS file_bytes
FROM used u
JOIN sweep_task t ON t.fingerprint = u.task
LEFT JOIN spent s ON s.task = u.task
LEFT JOIN kept k ON k.task = u.task
LEFT JOIN sweep_attempt r ON r.task = u.task AND r.number = t.result_attempt
GROUP BY u.study, t.kind""",
    "v_lineage": """WITH RECURSIVE line(task, ancestor, depth) AS (
    SELECT task, parent, 1 FROM sweep_dependency
    UNION
    SELECT l.task, d.parent, l.depth + 1
    FROM line l JOIN sweep_dependency d ON d.task = l.ancestor
)
SELECT t.id AS task, t.kind, a.id AS ancestor, a.kind AS ancestor_kind, min(l.depth) AS depth
FROM line l
JOIN sweep_task t ON t.fingerprint = l.task
JOIN sweep_task a ON a.fingerprint = l.ancestor
GROUP BY t.id, t.kind, a.id, a.kind""",
    "v_fit": """SELECT f.study, f.name AS fit, f.number, f.created_at, f.condition, f.law, f.n,
    f.slope, f.slope_low, f.slope_high, f.r2, f.folder, {result} AS result
FROM sweep_fit f
WHERE f.number = (
    SELECT max(g.number) FROM sweep_fit g
    WHERE g.study = f.study AND g.name = f.name AND g.condition = f.condition
)""",
    "v_trial": """SELECT r.study, r.search, r.number AS trial, c.number AS cell, {point} AS point,
    r.why_not, r.created_at AS asked_at
FROM sweep_trial r
JOIN sweep_search s ON s.study = r.study AND s.key = r.search
LEFT JOIN sweep_cell c ON c.study = r.study AND c.key = r.cell
WHERE s.is_current""",
    "v_fitted": """SELECT f.configuration, t.kind, t.id AS task, t.label, f.device_name,
    f.memory_bytes, f.ranks, f.micro_batch, f.recompute, f.peak_bytes, f.free_bytes, f.seen_at
FROM sweep_fitted f
JOIN sweep_task t ON t.fingerprint = f.task""",
    "v_reference": """SELECT r.id, r.source, r.place, r.figure, r.kind, r.dataset, r.variant,
    r.encoder, r.decoder, r.encoder_parameters, r.decoder_parameters, r.resolution, r.frames,
    r.q, r.p, r.c, r.tokens, r.e AS {E}, r.setting, r.generator, r.cfg,
    r.name, r.value, r.value_high, r.n, r.protocol, r.note
FROM sweep_reference r""",
}


def _select(view: str, dialect: str) -> str:
    sqlite = dialect == "sqlite"
    words = {
        # PostgreSQL's `json` keeps the order of axes but cannot be compared; jsonb can.
        "axes": "c.axes" if sqlite else "CAST(c.axes AS jsonb)",
        "point": "r.point" if sqlite else "CAST(r.point AS jsonb)",
        "result": "f.result" if sqlite else "CAST(f.result AS jsonb)",
        "E": '"E"' if sqlite else "e",
        "metrics": _spread(metric_columns("reconstruction")),
        "columns": ", ".join(f"m.{name}" for name in metric_columns("reconstruction")),
        "samples": _spread(metric_columns("generation")),
        "sample_columns": ", ".join(f"g.{name}" for name in metric_columns("generation")),
    }
    text = _SELECTS[view]
    for word, sql in words.items():
        text = text.replace("{" + word + "}", sql)
    return text


def _spread(names: tuple[str, ...]) -> str:
    """Rows of metrics `f` as columns of a group."""
    lines = (f"max(CASE WHEN f.name = '{name}' THEN f.value END) AS {name}" for name in names)
    return ",\n        ".join(lines)


def create_views(connection: Connection) -> None:
    """Make every view; they must not be there."""
    for view in VIEWS:
        text = _select(view, connection.dialect.name)
        connection.exec_driver_sql(f"CREATE VIEW {view} AS\n{text}")


def drop_views(connection: Connection) -> None:
    """Remove every view of ours that is there, also those only older revisions had."""
    if connection.dialect.name == "sqlite":
        rows = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'view'")
        there = {row[0] for row in rows}
        names = [name for name in FORMER_VIEWS + tuple(VIEWS) if name in there]
    else:
        names = list(FORMER_VIEWS + tuple(VIEWS))
    for name in names:
        connection.exec_driver_sql(f"DROP VIEW IF EXISTS {name}")


FORMER_VIEWS: tuple[str, ...] = ()
"""Views that older revisions had and this one has not."""


def views_digest() -> str:
    """Hash of the SQL of all views on both databases; changes when any of them does."""
    text = "\n".join(_select(view, name) for name in ("sqlite", "postgresql") for view in VIEWS)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
