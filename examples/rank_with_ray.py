"""Rank a corpus on a Ray cluster, or on this machine: Parquet or JSONL in, Parquet or JSONL out.

    pip install 'flashrank-lite[ray]'  # '.[ray]' in a checkout
    python examples/rank_with_ray.py examples/questions.jsonl ranked --actors 1

Rows hold a query and its passages (`query`, `passages`), which come out best first with `scores`;
or a query and a text (`query`, `text`), which get a `score`. On a cluster, run it under
`ray job submit`, with paths that every machine can read.
"""

import argparse
from collections.abc import Sequence

import ray

from flashrank_lite.integrations.ray import RankLists, ScorePairs


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", help="a .jsonl or .parquet file, or a folder of either")
    parser.add_argument("target", help="the folder to write")
    parser.add_argument("--to", choices=["parquet", "jsonl"], default="parquet")
    parser.add_argument("--model", help="a folder or a name; the bundled model by default")
    parser.add_argument("--top-k", type=int, help="passages to keep of each list")
    parser.add_argument("--actors", type=int, default=1)
    parser.add_argument("--cpus", type=int, default=1, help="of each actor: that many threads")
    parser.add_argument(
        "--batch-size", type=int, default=256, help="rows that an actor gets at once"
    )
    args = parser.parse_args(argv)

    ray.init(ignore_reinit_error=True)
    cpus = int(ray.cluster_resources().get("CPU", 1))
    if args.actors * args.cpus >= cpus:
        parser.error(f"leave one of Ray's {cpus} CPUs for reading: fewer --actors or --cpus")
    read = ray.data.read_json if "json" in args.source else ray.data.read_parquet
    rows = read(args.source)
    in_lists = "passages" in rows.schema().names
    settings = {"model": args.model} | ({"top_k": args.top_k} if in_lists else {})
    ranked = rows.map_batches(
        RankLists if in_lists else ScorePairs,
        fn_constructor_kwargs=settings,
        batch_format="pyarrow",
        batch_size=args.batch_size,
        compute=ray.data.ActorPoolStrategy(size=args.actors),
        num_cpus=args.cpus,
    )
    if args.to == "parquet":
        ranked.write_parquet(args.target)
    else:
        ranked.write_json(args.target)


if __name__ == "__main__":
    main()
