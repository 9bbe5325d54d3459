"""What clients and engines say to each other through the schedulers, which never look into it.

`serialize` packs calls, `outcomes` their answers. Below them: `pickles` turns objects into bytes, `functions` and
`classes` say how code travels, `snapshots` whether a function still is what was packed, `culprits` what cannot be
packed and why.
"""
