"""Device: what a VMM has set up of a device with one queue, message by message.

Rules of this file:

* It has no socket: a message comes in, and what to answer goes out.
* A message that can not be is a VhostError, and then the VMM is not to be listened to any more.
* The queue runs from the moment it has a descriptor to be kicked by until its base is asked for,
  unless it is disabled.  While it runs, its memory and its addresses may be replaced: it goes on
  with the next request, from the new ones.
* Whoever watches ``kick`` stops that before a message is handled, for it may be closed.
"""

from collections.abc import Callable
from typing import Final

from . import message as m
from .eventfd import Eventfd
from .memory import SLOTS, Memory, Region, VhostError
from .message import Message
from .ring import MOST, Ring

# linux/virtio_ring.h, linux/virtio_config.h, and vhost-user's own: numbers of bits
INDIRECT_DESC: Final = 28
EVENT_IDX: Final = 29
PROTOCOL_FEATURES: Final = 30
VERSION_1: Final = 32
FEATURES: Final = 1 << INDIRECT_DESC | 1 << EVENT_IDX | 1 << PROTOCOL_FEATURES | 1 << VERSION_1

#: Protocol features: MQ (0), REPLY_ACK (3), CONFIG (9), CONFIGURE_MEM_SLOTS (15).
PROTOCOL: Final = 1 << 0 | 1 << 3 | 1 << 9 | 1 << 15

#: Bytes of the configuration space, which is zeros behind what a device has in it.
CONFIG_MAX: Final = 256

Handler = Callable[[Message], bytes | None]


class Device:
    """A device.

    Args:
        features: bits of its own, beside those of queues.
        config: what the guest reads in its configuration space.

    Attributes:
        kick, call, fault: eventfds, if the VMM has given them: the guest has made requests; they
            are answered; the device has stopped.
    """

    def __init__(self, features: int, config: bytes) -> None:
        self.kick: Eventfd | None = None
        self.call: Eventfd | None = None
        self.fault: Eventfd | None = None
        self._offered = features | FEATURES
        self._features = 0
        self._config = config.ljust(CONFIG_MAX, b"\0")
        self._memory = Memory()
        self._size = 0
        self._addresses: tuple[int, int, int] | None = None
        self._base = 0
        self._enabled = False
        self._ring: Ring | None = None
        self._handlers: dict[int, Handler] = {
            m.GET_FEATURES: lambda _: m.U64.pack(self._offered),
            m.SET_FEATURES: self._set_features,
            m.SET_OWNER: lambda _: None,
            m.RESET_OWNER: lambda _: None,
            m.SET_MEM_TABLE: self._set_mem_table,
            m.SET_VRING_NUM: self._set_vring_num,
            m.SET_VRING_ADDR: self._set_vring_addr,
            m.SET_VRING_BASE: self._set_vring_base,
            m.GET_VRING_BASE: self._get_vring_base,
            m.SET_VRING_KICK: self._set_vring_kick,
            m.SET_VRING_CALL: self._set_vring_call,
            m.SET_VRING_ERR: self._set_vring_err,
            m.GET_PROTOCOL_FEATURES: lambda _: m.U64.pack(PROTOCOL),
            m.SET_PROTOCOL_FEATURES: self._set_protocol_features,
            m.GET_QUEUE_NUM: lambda _: m.U64.pack(1),
            m.SET_VRING_ENABLE: self._set_vring_enable,
            m.GET_CONFIG: self._get_config,
            m.SET_CONFIG: lambda _: None,  # there is nothing in it to write to
            m.GET_MAX_MEM_SLOTS: lambda _: m.U64.pack(SLOTS),
            m.ADD_MEM_REG: self._add_mem_reg,
            m.REM_MEM_REG: self._rem_mem_reg,
        }

    @property
    def ring(self) -> Ring | None:
        """The queue, while it runs; another one after each change."""
        return self._ring if self._enabled else None

    def handle(self, message: Message) -> bytes | None:
        """Do what a message says; what to answer, if anything.

        Raises:
            VhostError: it can not be.
        """
        try:
            handler = self._handlers.get(message.request)
            if handler is None:
                raise VhostError(f"request {message.request}, which was not offered")
            payload = handler(message)
        finally:
            message.close()
        if payload is None and message.needs_reply:
            payload = m.U64.pack(0)
        return None if payload is None else message.reply(payload)

    def close(self) -> None:
        """Give back what the VMM has given."""
        self._ring = None
        self._memory.replace([])
        for event in (self.kick, self.call, self.fault):
            if event is not None:
                event.close()
        self.kick = self.call = self.fault = None

    # Features and configuration

    def _set_features(self, message: Message) -> None:
        features = message.number()
        if features & ~self._offered:
            raise VhostError(f"features {features:#x}, of {self._offered:#x} offered")
        self._features = features
        if not features >> PROTOCOL_FEATURES & 1:
            self._enabled = True

    def _set_protocol_features(self, message: Message) -> None:
        features = message.number()
        if features & ~PROTOCOL:
            raise VhostError(f"protocol features {features:#x}, of {PROTOCOL:#x} offered")

    def _get_config(self, message: Message) -> bytes:
        payload = message.payload
        if len(payload) < m.CONFIG.size:
            raise VhostError("a configuration without its head")
        offset, size, flags = m.CONFIG.unpack_from(payload)
        if offset + size > CONFIG_MAX:
            raise VhostError(f"{size} bytes at {offset} of a configuration of {CONFIG_MAX}")
        return m.CONFIG.pack(offset, size, flags) + self._config[offset : offset + size]

    # Memory

    def _set_mem_table(self, message: Message) -> None:
        places = message.regions()
        self._memory.replace(
            [Region(place, fd) for place, fd in zip(places, message.fds, strict=True)]
        )
        self._renew()

    def _add_mem_reg(self, message: Message) -> None:
        place = message.region()
        if len(message.fds) != 1:
            raise VhostError("a region of memory without its file")
        self._memory.add(Region(place, message.fds[0]))
        self._renew()

    def _rem_mem_reg(self, message: Message) -> None:
        self._memory.remove(message.region())
        self._renew()

    # The queue

    def _set_vring_num(self, message: Message) -> None:
        size = self._state_of_stopped(message)
        if not 0 < size <= MOST or size & (size - 1):
            raise VhostError(f"a queue of {size}, not of a power of 2 up to {MOST}")
        self._size = size

    def _set_vring_base(self, message: Message) -> None:
        base = self._state_of_stopped(message)
        if base > 0xFFFF:
            raise VhostError(f"index {base} of a queue")
        self._base = base

    def _set_vring_addr(self, message: Message) -> None:
        index, _, descriptors, used, available, _ = message.fields(m.ADDRESS)
        _require_first(index)
        self._addresses = descriptors, available, used
        self._renew()

    def _get_vring_base(self, message: Message) -> bytes:
        _require_first(message.fields(m.STATE)[0])
        if self._ring is not None:
            self._base = self._ring.base
        self._ring = None
        if self.kick is not None:
            self.kick.close()
            self.kick = None
        return m.STATE.pack(0, self._base)

    def _set_vring_enable(self, message: Message) -> None:
        index, enabled = message.fields(m.STATE)
        _require_first(index)
        self._enabled = bool(enabled)

    def _set_vring_kick(self, message: Message) -> None:
        self.kick = _replaced(self.kick, message)
        if self.kick is None:
            raise VhostError("a queue that would have to be polled")
        if not self._size or self._addresses is None:
            raise VhostError("a queue that starts without a size or a place")
        if self._ring is None:
            self._start(self._addresses)

    def _set_vring_call(self, message: Message) -> None:
        self.call = _replaced(self.call, message)

    def _set_vring_err(self, message: Message) -> None:
        self.fault = _replaced(self.fault, message)

    def _renew(self) -> None:
        """Memory or addresses have changed: if the queue runs, it goes on from there."""
        if self._ring is not None and self._addresses is not None:
            self._base = self._ring.base
            self._start(self._addresses)

    def _start(self, addresses: tuple[int, int, int]) -> None:
        event_index = bool(self._features >> EVENT_IDX & 1)
        self._ring = Ring(self._memory, self._size, *addresses, self._base, event_index)

    def _state_of_stopped(self, message: Message) -> int:
        """The number that is set of a queue, which must not run."""
        index, number = message.fields(m.STATE)
        _require_first(index)
        if self._ring is not None:
            raise VhostError(f"request {message.request} while the queue runs")
        return number


def _require_first(index: int) -> None:
    if index:
        raise VhostError(f"queue {index} of 1")


def _replaced(event: Eventfd | None, message: Message) -> Eventfd | None:
    """The eventfd that a message brings instead of the one there was, if it brings one."""
    number = message.number()
    _require_first(number & 0xFF)
    new = None if number & m.NO_FD else Eventfd(message.take_fd())
    if event is not None:
        event.close()
    return new
