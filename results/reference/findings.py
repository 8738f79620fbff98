"""Every figure of README's "Findings", from the rows beside this file: `python results/reference/findings.py`."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import t as student

from bench.report.ensembles import headline
from bench.report.frames import apart, current, ok, read_rows
from bench.report.gains import reader
from bench.report.intervals import image_noise, seed_noise
from bench.report.leaderboard import Leaderboard, leaderboard
from bench.report.significance import holm
from bench.report.words import answer
from bench.report.written import seconds

FOLDER = Path(__file__).resolve().parent
EARLIER = FOLDER / "earlier.parquet"
"""The same cells of an earlier version, which drew other hyperparameters to try."""
SAME = ("scratch", "full_finetune", "partial_finetune", "bn_only", "l2_sp", "augment_domain", "knn_probe")
"""Strategies whose code was then what it is now."""
V2 = FOLDER.parent / "published" / "medmnist_v2.csv"


def main() -> None:
    networks, made, _ = apart(current(read_rows(FOLDER)))
    few, wide = (networks.query(f"size == {size} and per_class == 10") for size in (28, 64))
    core = few[few["strategy"].isin(wide["strategy"])]  # those that all networks have
    strategies("10 images a class, 28 px", core)
    searched_anew(core, pd.read_parquet(EARLIER))
    backbones("networks, 10 images a class, 28 px", core)
    two = wide["backbone"].unique()
    strategies("10 images a class, enlarged to 64 px, two networks", wide)
    backbones("networks, 10 images a class, enlarged to 64 px", wide)
    of_two = few[few["backbone"].isin(two)]
    enlarged(pd.concat([core[core["backbone"].isin(two)], wide]))
    on = ok(of_two).groupby("strategy")[["dataset", "backbone"]].apply(lambda part: len(part.drop_duplicates()))
    both = of_two[of_two["strategy"].isin(on.index[on == on.max()])]  # not co_tuning, which one of them cannot have
    strategies("all strategies, 10 images a class, 28 px, two networks", both)
    some = networks.query("size == 28 and per_class == 50")
    strategies("50 images a class, 28 px, two networks", some)
    strategies("the same at 10 images a class", of_two[of_two["strategy"].isin(some["strategy"])])
    every = networks.query("size == 28 and per_class.isna()")
    whole = ok(every).groupby(["dataset", "backbone"])["strategy"].transform("nunique") == core["strategy"].nunique()
    if whole.any():
        strategies("all images, 28 px, where all strategies were run", ok(every)[whole])
    ensembles(core, made)
    print("  beside the networks of all strategies:", *headline_of(few, made), sep="\n  ")
    published(every)


def strategies(title: str, rows: pd.DataFrame) -> None:
    board = leaderboard(rows)
    counts = ok(rows).groupby("dataset")["n_val"].max()
    val = ", ".join(f"{dataset} {images:.0f}" for dataset, images in counts.items())
    print(f"\n{title}: {board.blocks_used} blocks, {len(board.used)} runs; images of val: {val}")
    corrected = against_control(board)
    for one in board.ranked.itertuples():
        told = f"{num(one.auc)}; {seconds(one.seconds)}; best in {one.p_best:.0%}; within .01 in {one.within:.0%}"
        if one.label != board.control:
            told += f"; gain {between(one.gain, one.gain_margin)}, p {p_value(corrected[one.label])}"
        print(f"  {one.label}: {told}")
    print(*answer(board, rows), sep="\n  ")


def searched_anew(now: pd.DataFrame, earlier: pd.DataFrame) -> None:
    """How far the means of cells are from those after another search."""
    cell = ["strategy", "dataset", "backbone"]
    pairs = [ok(rows[rows["strategy"].isin(SAME)]).groupby(cell)["test_auc"].mean() for rows in (now, earlier)]
    moved = (pairs[0] - pairs[1]).dropna()
    print(
        f"\nanother search: {len(moved)} cells of {len(SAME)} strategies moved by {num(moved.abs().mean())} on average"
    )
    print(*(f"  {name}: {signed(part.mean())}" for name, part in moved.groupby("strategy")), sep="\n")
    strategies("the earlier rows, 10 images a class, 28 px", earlier)


def against_control(board: Leaderboard) -> dict[str, float]:
    """p of each gain over the control, over seeds and test images of these datasets, corrected for their number."""
    matrix = board.matrix
    assert matrix is not None
    noise = seed_noise(matrix.scores, matrix.weights) + image_noise(matrix.dataset_errors)
    control = matrix.labels.index(board.control)
    means = np.nanmean(matrix.scores, axis=-1) @ matrix.weights
    others = [at for at in range(len(matrix.labels)) if at != control]
    both = [noise.at(np.array([at])) + noise.at(np.array([control])) for at in others]
    away = [abs(means[at] - means[control]) / np.sqrt(one.variance[0]) for at, one in zip(others, both, strict=True)]
    p = [2 * float(student.sf(far, one.freedom[0])) for far, one in zip(away, both, strict=True)]
    return dict(zip([matrix.labels[at] for at in others], holm(p), strict=True))


def backbones(title: str, rows: pd.DataFrame) -> None:
    board = leaderboard(rows, "backbone")
    print(f"\n{title}: {board.blocks_used} blocks, {len(board.used)} runs")
    for one in board.ranked.itertuples():
        print(
            f"  {one.label}: {num(one.auc)}; behind {between(one.behind, one.margin)}; first on {one.wins:.0f} datasets"
        )


def enlarged(rows: pd.DataFrame) -> None:
    """The same runs at two sizes."""
    board = leaderboard(rows.assign(size=rows["size"].astype(str)), "size")
    last = board.ranked.iloc[-1]
    of_seeds = f"{signed(last['behind_lo'])} to {signed(last['behind_hi'])}"
    print(f"\nsize: {board.blocks_used} blocks, {len(board.used)} runs; {last['label']} px is behind by")
    print(f"  {between(last['behind'], last['margin'])} over seeds and test images, {of_seeds} over seeds alone")


def ensembles(few: pd.DataFrame, made: pd.DataFrame) -> None:
    print("\nensembles:", *headline_of(few, made), sep="\n  ")
    for kind, part in ok(made).query("size == 28 and per_class == 10 and over == 'backbones'").groupby("strategy"):
        of_dataset = part.groupby(["dataset", "members"])
        print(f"  {kind}: {num(part.groupby('dataset')['test_auc'].mean().mean())}", len(of_dataset))
    pairs = leaderboard(few, ["strategy", "backbone"]).table.nlargest(3, "auc")
    print("  single:", *(f"{one.label} {num(one.auc)}" for one in pairs.itertuples()), sep="\n    ")


def headline_of(few: pd.DataFrame, made: pd.DataFrame) -> list[str]:
    return [re.sub(r"\b0\.", ".", sentence) for sentence in headline(ok(few), ok(made), reader([FOLDER], []))]


def published(rows: pd.DataFrame) -> None:
    """The network and strategy of the highest mean val AUC over datasets, beside ResNet-18 of MedMNIST v2."""
    theirs = pd.read_csv(V2).query("method == 'ResNet-18 (28)'").set_index("dataset")["auc"]
    rows = ok(rows)
    print("\nall images, 28 px: the strategy that is best on val")
    for backbone, part in rows.groupby("backbone"):
        for dataset, cells in part.groupby("dataset"):
            means = cells.groupby("strategy")[["val_auc", "test_auc", "test_auc_lo", "test_auc_hi"]].mean()
            best = means.loc[means["val_auc"].idxmax()]
            print(f"  {backbone} {dataset} {means['val_auc'].idxmax()}: {num(best['test_auc'])} "
                  f"({span(best['test_auc_lo'], best['test_auc_hi'])}); published {num(theirs[dataset])}")  # fmt: skip


def num(value: float) -> str:
    return f"{value:.3f}".replace("0.", ".").replace("-", "−")


def p_value(value: float) -> str:
    return "< .001" if value < 0.001 else num(value)


def signed(value: float) -> str:
    return f"{value:+.3f}".replace("0.", ".").replace("-", "−")


def span(low: float, high: float) -> str:
    return f"{num(low)} to {num(high)}"


def between(centre: float, half: float) -> str:
    return f"{signed(centre)} ({signed(centre - half)} to {signed(centre + half)})"


if __name__ == "__main__":
    main()
