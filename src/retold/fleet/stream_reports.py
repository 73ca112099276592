"""The reports of a shelf on JetStream: the bucket `retold-LOG-alive`, which a client of NATS's key-value store can read too."""

from typing import TYPE_CHECKING, Any

from .shelf import Refused, Unreachable

if TYPE_CHECKING:
    from .stream_connection import StreamConnection

BATCH = 256
"""Reports that are fetched at once."""


class StreamReports:
    """The bucket of one stream, on its connection. Both methods raise ShelfError.

    A credential may be good for pages and not for reports. Then both raise Refused, at once from the second time on.
    """

    def __init__(self, link: "StreamConnection") -> None:
        self._link = link
        self._denied = dict[str, str]()

    def put(self, key: str, text: bytes) -> None:
        """Put a text under a key; make the bucket if it is not there, and this connection may make a stream."""
        link = self._link
        stream = f"KV_{link.bucket}"

        async def put() -> None:
            from nats.js.errors import NoStreamResponseError

            js = link.asynchronous()
            try:
                await js.publish(f"$KV.{link.bucket}.{key}", text, stream=stream)
            except NoStreamResponseError as error:
                if not link.make:
                    raise Refused(f"{link.name} has no bucket {link.bucket}; the next `retold ship` makes it.") from error
                await link.make_bucket(js)
                await js.publish(f"$KV.{link.bucket}.{key}", text, stream=stream)

        self._asked("write", put)

    def all(self) -> dict[str, bytes]:
        """Return the newest text under each key."""
        found: dict[str, bytes] = {}

        async def read() -> None:
            from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
            from nats.js.errors import NotFoundError

            config = ConsumerConfig(
                deliver_policy=DeliverPolicy.LAST_PER_SUBJECT, ack_policy=AckPolicy.NONE, mem_storage=True, num_replicas=1,
                inactive_threshold=5, filter_subjects=[f"$KV.{self._link.bucket}.>"],
            )  # fmt: skip
            try:
                reader = await self._link.asynchronous().pull_subscribe("", stream=f"KV_{self._link.bucket}", config=config)
            except NotFoundError:
                return  # nothing was reported yet
            try:
                left = (await reader.consumer_info()).num_pending
                while left:
                    for message in await reader.fetch(BATCH):
                        found[message.subject.split(".", 2)[2]] = message.data
                        left = message.metadata.num_pending
            finally:
                await reader.unsubscribe()

        self._asked("read", read)
        return found

    def _asked(self, kind: str, asking: Any) -> None:
        link = self._link
        link.js()
        if kind not in self._denied:
            link.reports_denied = None
            try:
                link.ask(asking())
                return
            except Unreachable:
                if link.reports_denied is None:
                    raise
                self._denied[kind] = link.reports_denied
        raise Refused(f"{link.name}: this credential cannot {kind} reports: {self._denied[kind]}.")
