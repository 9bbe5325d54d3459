"""What clients and engines say to each other through the schedulers, which never look into it.

`serialize` packs calls, `outcomes` their answers; `reports` and `outputs` are what travels beside an answer: an error,
and what was printed or displayed. `cells` are a notebook's; `namespace`, `completion` and `comms` are functions that
clients call on engines. Below them: `pickles` turns objects into bytes, `functions` and `classes` say how code travels,
`snapshots` whether a function still is what was packed, `culprits` what cannot be packed and why.
"""
