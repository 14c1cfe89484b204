"""The sections of a report, each as HTML; an empty one where there is nothing to say."""

from __future__ import annotations

import re

import numpy as np

from vidtrain.reports.confusion import MOST_NAMES, confused_pairs
from vidtrain.reports.curves import panels
from vidtrain.reports.page.charts import confusion_pattern, confusion_table, data_uri, line_chart, reliability_chart
from vidtrain.reports.page.content import Clip, CsvRows, ReportContent
from vidtrain.reports.page.markup import Html, Number, class_table, element, escape, joined, table, tall
from vidtrain.reports.page.timelines import verdict_of_segments
from vidtrain.reports.results import TestResult, scored_sentence
from vidtrain.reports.score_figures import CLASS_NUMBERS, class_number, ranked_classes, reliability_title, views_key
from vidtrain.reports.table import counted

_MOST_CLASSES = 1000  # rows of the table of classes
_SAME = ("balanced_accuracy", "micro_f1")  # as mean_class and top1, where each video has one class
_NOTHING = Html("")


# ---------------------------------------------------------------- the answer


def verdict(content: ReportContent) -> Html:
    """A sentence with the number, its interval and its protocol; then what the number means."""
    if content.segments is not None:
        return verdict_of_segments(content.segments)
    test = content.test
    if test is None:
        said = content.validation or "This run has no test."
        return element("p", said, class_="verdict")
    sentences = [sentence for sentence in (_baseline(test), _weakest(test), _confused(test)) if sentence]
    lines = element("p", scored_sentence(dict(test.content)), class_="soft")
    return joined([element("p", _headline(content, test), class_="verdict"), lines, element("p", " ".join(sentences))])


def _headline(content: ReportContent, test: TestResult) -> str:
    key, split = content.primary, test.part("split")
    value, title = test.numbers.get(key), content.titles.get(key, key)
    if value is None:
        return f"None of the {counted(test.scored, 'video')} of the {split} split that were scored has a known class."
    text = f"{title} {value:.3f} on {counted(test.scored, 'video')} of the {split} split"
    confusion = test.confusion
    if confusion is not None and key == "top1":
        right, known = int(confusion.trace()), int(confusion.sum())
        text = f"{title} {value:.3f}: {right} of {counted(known, f'{split} video')} right"
    interval = test.part("intervals") or {}
    if (ends := interval.get("values", {}).get(key)) is not None:
        text += f", {100 * interval['level']:.3g} % interval {ends[0]:.3f} to {ends[1]:.3f}"
        if interval["over"] != "videos":
            text += f" over {interval['count']} {interval['over']}"
    return f"T{text[1:]}" if text.startswith("top-") else text


def _baseline(test: TestResult) -> str:
    rows = test.part("classes") or ()
    total = sum(row["support"] for row in rows)
    if test.multi_label or not total or len(rows) < 2:
        return ""
    most = max(rows, key=lambda row: row["support"])
    which = (
        "One class"
        if all(r["support"] == most["support"] for r in rows)
        else f"The largest class, {_quoted(most['name'])},"
    )
    return f"{which} as the answer to all would reach {most['support'] / total:.3f}."


def _weakest(test: TestResult) -> str:
    key = class_number(multi_label=test.multi_label)
    ranked = ranked_classes(test.part("classes") or (), key)
    if len(ranked) < 2:
        return ""
    names = ", ".join(f"{_quoted(row['name'])} ({row[key]:.2f})" for row in ranked[: min(3, len(ranked) // 2)])
    return f"Lowest {CLASS_NUMBERS[key]}: {names}."


def _confused(test: TestResult) -> str:
    pairs = [] if test.confusion is None else confused_pairs(test.confusion, 1)
    if not pairs:
        return ""
    names, pair = test.class_names, pairs[0]
    taken = f"{_quoted(names[pair.true])} taken for {_quoted(names[pair.predicted])}"
    return f"Most often confused: {taken}, {pair.count} of {pair.of}."


def _quoted(name: str) -> str:
    return f"“{name}”"


def tiles(content: ReportContent) -> Html:
    """The numbers of the test, each with its title, and those of the run."""
    test, found = content.tested, []
    if test is not None:
        ends = (test.part("intervals") or {}).get("values", {})
        same = () if test.part("multi_label") else _SAME
        for key, title in content.titles.items():
            if (value := test.numbers.get(key)) is not None and key not in same:
                between = f"{ends[key][0]:.3f} to {ends[key][1]:.3f}" if key in ends else ""
                found.append((title, f"{value:.3f}", between))
    found += [(title, text, "") for title, text in content.numbers.items()]
    cells = [
        element("li", element("b", text), element("span", title), element("span", more) if more else "")
        for title, text, more in found
    ]
    return element("ul", *cells, class_="tiles") if cells else _NOTHING


# ---------------------------------------------------------------- what it learned, what it confuses


def learning(content: ReportContent) -> Html:
    metrics = [(key, content.titles.get(key, key)) for key in (content.primary, "top1")]
    charts = [
        line_chart(panel.lines, title=panel.title, x_title="epoch", share=panel.share, counts=True)
        for panel in panels(content.curves, metrics)
    ]
    return element("div", *charts, class_="row") if charts else _NOTHING


def confusion(content: ReportContent) -> Html:
    """The matrix; of many classes its pattern beside the most confused pairs."""
    test = content.test
    counts = None if test is None else test.confusion
    if test is None or counts is None:
        return _NOTHING
    if len(counts) <= MOST_NAMES:
        return confusion_table(counts, test.class_names)
    pairs = confused_pairs(counts, 40)
    names = test.class_names
    rows = [
        [names[p.true], names[p.predicted], Number(p.count, "d"), Number(p.count / p.of, ".3f", bar=True)]
        for p in pairs
    ]
    header = ["true class", "predicted", "videos", "share of its class"]
    return element("div", confusion_pattern(counts), tall(table(header, rows, sortable=True), len(rows)), class_="row")


def pairs(content: ReportContent) -> Html:
    """The videos of the most confused pairs."""
    parts = []
    for found in content.pairs:
        names = () if content.test is None else content.test.class_names
        true, answer = names[found.pair.true], names[found.pair.predicted]
        parts.append(element("h3", f"{true}, taken for {answer}: {found.pair.count} of {found.pair.of}"))
        parts.append(element("div", *map(_clip, found.clips), class_="clips"))
    return joined(parts)


def errors(content: ReportContent) -> Html:
    if not content.errors:
        return _NOTHING
    return element("div", *map(_clip, content.errors), class_="clips")


def _clip(clip: Clip) -> Html:
    video = clip.video
    true = ", ".join(video.labels)
    answer, probability = video.top[0] if video.top else ("", 0.0)
    own = dict(video.top).get(true)
    alt = f"{video.path}: {true}, answered {answer}"
    if clip.animated is None:
        shown = element("div", clip.note, class_="none")
    else:
        still = "" if clip.still is None else data_uri("image/webp", clip.still)
        calm = f'<source media="(prefers-reduced-motion: reduce)" srcset="{still}">' if still else ""
        source = data_uri("image/webp", clip.animated)
        shown = Html(f'<picture>{calm}<img src="{source}" alt="{escape(alt)}" loading="lazy"></picture>')
    said = [element("b", true), " answered ", element("b", answer), f" {probability:.3f}"]
    said += [f"; its own class {own:.3f}"] if own is not None and len(video.labels) == 1 else []
    segment = (
        ""
        if video.start is None
        else f" from {video.start:g} s" + ("" if video.end is None else f" to {video.end:g} s")
    )
    where = element("small", _breakable(video.path), segment)
    return element("figure", shown, element("figcaption", *said, where), class_="clip")


def _breakable(path: str) -> Html:
    """A path that a narrow column breaks after a folder or a word, not within one."""
    return joined(re.split(r"(?<=[/_])(?=[^/_])", path), "<wbr>")


# ---------------------------------------------------------------- per class, probabilities, views


def classes(content: ReportContent) -> Html:
    """A sortable table, the worst class first; of more than _MOST_CLASSES the worst."""
    rows = [] if content.test is None else list(content.test.part("classes") or ())
    if content.test is None or not rows:
        return _NOTHING
    key = class_number(multi_label=content.test.multi_label)
    ranked = ranked_classes(rows, key)
    known = set(map(id, ranked))
    ranked += [row for row in rows if id(row) not in known]
    shares = ("precision", "recall", "f1", "average_precision", "auc")
    lines = [
        [
            row["name"],
            Number(row["support"], "d"),
            Number(row["predicted"], "d"),
            *(Number(row.get(name), ".3f", bar=name == key) for name in shares),
        ]
        for row in ranked[:_MOST_CLASSES]
    ]
    header = ["class", "videos", "predicted", "precision", "recall", "F1", "average precision", "AUC"]
    return class_table(header, lines, len(rows))


def reliability(content: ReportContent) -> Html:
    """How far a probability can be believed, and what answering less often would bring."""
    test = content.test
    calibration = {} if test is None else test.part("calibration") or {}
    bins = [found for found in calibration.get("bins") or () if found["count"]]
    if test is None or not bins:
        return _NOTHING
    parts: list[Html] = [element("p", reliability_title(calibration)), reliability_chart(bins)]
    return element("div", element("div", *parts), element("div", *_decisions(test)), class_="row")


def _decisions(test: TestResult) -> list[Html]:
    """What is said of a threshold and of sets of classes, where a test was asked for them."""
    found, rejection, conformal = [], test.part("rejection"), test.part("conformal")
    if rejection is not None:
        precision = "" if rejection["precision"] is None else f" and {rejection['precision']:.3f} of these are right"
        text = f"Answering from a probability of {rejection['threshold']:.3f} on, {rejection['coverage']:.3f} of the"
        wanted = f"(wanted: {rejection['wanted_precision']:.3f})"
        found.append(element("p", f"{text} videos are answered{precision} {wanted}."))
        curve = [(p["coverage"], p["precision"]) for p in rejection["curve"] if p["precision"] is not None]
        if len(curve) > 1:
            points = {"": sorted(curve)}
            found.append(line_chart(points, title="share that is right", x_title="share answered", share=True))
    if conformal is not None and conformal["coverage"] is not None:
        text = f"Sets of {conformal['mean_size']:.2f} classes on average hold the true one for"
        wanted = f"(wanted: {conformal['wanted_coverage']:.3f})"
        found.append(element("p", f"{text} {conformal['coverage']:.3f} of the videos {wanted}."))
    return found


def views(content: ReportContent) -> Html:
    rows = () if content.test is None else content.test.part("views") or ()
    key = views_key(rows, content.primary)
    points = [(float(row["views"]), float(row[key])) for row in rows if row.get(key) is not None]
    if len(points) < 2:
        return _NOTHING
    return line_chart({"": points}, title=content.titles.get(key, key), x_title="views averaged", counts=True)


def suspects(content: ReportContent) -> Html:
    if content.suspects is None or not content.suspects.rows:
        return _NOTHING
    clips = [element("div", *map(_clip, content.suspect_clips), class_="clips")] if content.suspect_clips else []
    return joined([*clips, _rows(content.suspects)])


# ---------------------------------------------------------------- what it was made of


def data(content: ReportContent) -> Html:
    """Counts, lengths, and what was not scored and why."""
    parts: list[Html] = []
    if content.splits:
        counts = ", ".join(f"{name} {count}" for name, count in content.splits.items())
        parts.append(element("p", f"Videos: {counts}."))
    if (test := content.tested) is not None:
        numbers = [
            *(test.part(key) for key in ("scored", "listed", "missing", "unreadable")),
            len(test.part("not_finite")),
        ]
        header = ["scored", "listed", "not on disk", "unreadable", "output not finite"]
        parts.append(table(header, [[Number(count, "d") for count in numbers]]))
    if content.seconds:
        values = np.quantile(content.seconds, [0, 0.05, 0.5, 0.95, 1])
        header = ["seconds", "min", "5 %", "median", "95 %", "max"]
        name = f"of {counted(len(content.seconds), 'test video')}"
        parts.append(table(header, [[name, *(Number(value, ".2f") for value in values)]]))
    if content.not_scored is not None and content.not_scored.rows:
        summary = element("summary", f"{counted(content.not_scored.total, 'video')} not scored, and why")
        parts.append(element("details", summary, _rows(content.not_scored)))
    return joined(parts)


def configuration(content: ReportContent) -> Html:
    """What differs from the defaults of the same choices, then all of it."""
    parts: list[Html] = []
    if content.choices:
        chosen = " ".join(f"{group}={choice}" for group, choice in content.choices.items())
        parts.append(element("p", element("code", chosen)))
    if content.options:
        rows = [[element("code", row.key), row.value, row.usual, row.text] for row in content.options]
        header = ["option", "this run", "default", "what it does"]
        parts.append(element("div", table(header, rows), class_="options"))
    if content.config:
        whole = element("pre", Html(joined(content.config.splitlines(), "\n")))
        parts.append(element("details", element("summary", "the whole configuration"), whole))
    return joined(parts)


def environment(content: ReportContent) -> Html:
    if not content.environment:
        return _NOTHING
    return table(["", ""], list(content.environment.items()))


def commands(content: ReportContent) -> Html:
    parts: list[Html] = []
    for what, command in content.commands.items():
        parts += [element("p", what), element("pre", command)]
    return joined(parts)


def notes(content: ReportContent) -> Html:
    return joined(element("p", note, class_="note") for note in content.notes)


def _rows(found: CsvRows) -> Html:
    more = found.total - len(found.rows)
    note = element("p", f"and {more} more", class_="note") if more > 0 else _NOTHING
    return joined([tall(table(found.header, found.rows), len(found.rows)), note])
