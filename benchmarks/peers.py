"""Every system that is measured, by the name it has in the tables."""

from benchmarks.clusters import Hiersched, Ipyparallel, OldClient
from benchmarks.floors import BareZmq, BareZmqForwarded, BareZmqTree
from benchmarks.peer import Peer
from benchmarks.pools import Dask, Joblib, Loky, MpiFutures, ProcessPool, Ray

PEERS: dict[str, type[Peer]] = {
    peer.label: peer
    for peer in (
        Hiersched,
        Ipyparallel,
        OldClient,
        ProcessPool,
        Loky,
        MpiFutures,
        Dask,
        Ray,
        Joblib,
        BareZmq,
        BareZmqForwarded,
        BareZmqTree,
    )
}
