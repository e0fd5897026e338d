"""The kinds of clusters that a study can run on: one record per kind, found by name or address.

To add one, write a module of `sweepctl.cluster` with a function that opens its pool, and a record
here: the site file, the command line and `open_pool` take it from there.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterKind:
    """One kind of cluster.

    Attributes:
        name: what a site file or --cluster says; of a kind with addresses, their scheme.
        opener: "module:function" that opens the pool, from a `sweepctl.cluster.PoolRequest`;
            imported when it is needed.
        address: what follows "name://" as people write it; "" for a kind without addresses.
        about: where attempts run, in a few words.
    """

    name: str
    opener: str
    address: str = ""
    about: str

    @property
    def written(self) -> str:
        """How it is named, with an example of an address."""
        return f"{self.name}://{self.address}" if self.address else self.name


CLUSTERS: dict[str, ClusterKind] = {
    kind.name: kind
    for kind in (
        ClusterKind(
            name="local",
            opener="sweepctl.cluster._dask:open_local",
            about="worker processes of this machine",
        ),
        ClusterKind(
            name="inline",
            opener="sweepctl.cluster._inline:open_inline",
            about="in this process, one attempt at a time",
        ),
        ClusterKind(
            name="tcp",
            opener="sweepctl.cluster._dask:open_remote",
            address="host:8786",
            about="a Dask scheduler",
        ),
        ClusterKind(
            name="tls",
            opener="sweepctl.cluster._dask:open_remote",
            address="host:8786",
            about="a Dask scheduler, encrypted",
        ),
    )
}
"""Name -> kind."""


def find_cluster(where: str) -> ClusterKind:
    """The kind of cluster that a name or an address means.

    Raises:
        ValueError: there is none; the message lists those that there are.
    """
    scheme, separator, address = where.partition("://")
    kind = CLUSTERS.get(scheme)
    if kind is None or bool(kind.address) != bool(separator) or bool(separator) != bool(address):
        raise ValueError(
            f"there is no cluster {where!r}; there are "
            + ", ".join(f"{one.written} ({one.about})" for one in CLUSTERS.values())
        )
    return kind
