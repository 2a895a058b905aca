"""Where a model comes from, and what it says of itself.

`resolve.resolve(name)` gives a `ResolvedModel`: its folder, its manifest, the graph to run and why.

    resolve.py        a name → a place: the bundled model, a folder, an installed package, the Hub
    packages.py       the bundled model, and those that installed packages announce
    catalog.py        names that people know → repositories on the Hub
    hub.py            a repository → the files that a model takes; archive.py: FlashRank's zip files
    client.py         requests to the Hub, and what its failures mean
    records.py        which commit was downloaded, and what the Hub stated of its files
    folder.py         a model on disk: ResolvedModel
    manifest.py       reranker.json; config.py: the Hugging Face files that stand in for it
    graphs.py         which graph is run, and why: GraphChoice
    verification.py   are the files what they were? checksums.py: of one file
    pull.py           a model from the Hub → a plain folder
"""
