"""Score (query, text) pairs on Spark: Parquet or JSONL in, Parquet out.

    pip install 'flashrank-lite[spark]'          # and Java
    python examples/score_with_spark.py pairs.parquet scored

Rows hold `query` and `text`, and get a `score`. On a cluster, `spark-submit` it, with
flashrank-lite in the workers' Python.
"""

import argparse
from collections.abc import Sequence

from pyspark.sql import SparkSession

from flashrank_lite.integrations.spark import ScorePairs


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", help="a .jsonl or .parquet file, or a folder of either")
    parser.add_argument("target", help="the folder to write")
    parser.add_argument("--model", help="a folder or a name; the bundled model by default")
    args = parser.parse_args(argv)

    spark = SparkSession.builder.appName("flashrank-lite").getOrCreate()
    read = spark.read.json if "json" in args.source else spark.read.parquet
    pairs = read(args.source)
    score = ScorePairs(args.model)
    pairs.mapInPandas(score, score.schema(pairs.schema)).write.parquet(args.target)


if __name__ == "__main__":
    main()
