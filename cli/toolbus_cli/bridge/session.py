"""Session of a client that uses the session-based protocol family."""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Lock, Thread

from toolbus_cli.bridge import responses
from toolbus_cli.bridge.http import Endpoint, Flight, LostError, UnreachedError, events, whole

OK, NO_SESSION, NO_STREAM = 200, 404, 405
NOTICE_SECONDS = 10.0  # for notifications, which have no reply
CLOSE_SECONDS = 1.0
OPENING_SECONDS = 2.0
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
_INITIALIZED = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'


@dataclass(frozen=True, slots=True)
class Session:
    """An open session, and the handshake message that renews it."""

    token: str
    version: str
    handshake: bytes

    @property
    def headers(self) -> dict[str, str]:
        """The headers that every request in the session must have."""
        session = {"Mcp-Session-Id": self.token} if self.token else {}
        return {**session, "MCP-Protocol-Version": self.version}


class Sessions:
    """The current session, and its stream of notifications from the endpoint."""

    def __init__(
        self,
        endpoint: Endpoint,
        common: dict[str, str],
        say: Callable[[bytes], None],
        note: Callable[[str], None],
    ) -> None:
        self._endpoint, self._common = endpoint, common
        self._say, self._note = say, note
        self._lock = Lock()
        self._closing = Event()
        self._stream = Flight()
        self._settings: dict[str, bytes] = {}
        self.now: Session | None = None

    def begin(self, handshake: bytes, answer: bytes, token: str) -> bool:
        """Set the session from the reply to a handshake; return False if the reply is invalid."""
        result = responses.parsed(answer).get("result")
        version = result.get("protocolVersion") if isinstance(result, dict) else None
        if not isinstance(version, str):
            return False
        self._stream.give_up()
        self.now = Session(token, version, handshake)
        return True

    def remember(self, name: str, line: bytes | None) -> None:
        """Store a request that is repeated after a renewal; None removes the stored request."""
        if line is None:
            self._settings.pop(name, None)
        else:
            self._settings[name] = line

    def post(self, line: bytes) -> int:
        """Post a message that has no reply; return the HTTP status, or 0 on a connection error."""
        headers = self.now.headers if self.now else {}
        try:
            with self._endpoint.exchange(
                "POST", {**self._common, **headers}, line, Flight(), NOTICE_SECONDS
            ) as response:
                whole(response)
                return response.status
        except (UnreachedError, LostError) as error:
            self._note(f"a notification could not be sent to {self._endpoint.url} ({error})")
            return 0

    def renew(self, ended: Session) -> bool:
        """Replace an expired session by a new one; return False if the handshake fails.

        The handshake and the stored requests are repeated. If another thread has already replaced
        the session, nothing is sent.
        """
        with self._lock:
            if self.now is not ended:
                return True
            if not self._shake_hands(ended.handshake):
                return False
        self._note("the session had expired and was renewed")
        self.post(_INITIALIZED)
        for line in list(self._settings.values()):
            self.post(line)
        self.listen()
        return True

    def _shake_hands(self, handshake: bytes) -> bool:
        with self._endpoint.exchange(
            "POST", self._common, handshake, Flight(), NOTICE_SECONDS
        ) as response:
            return self.begin(handshake, whole(response), response.getheader("mcp-session-id", ""))

    def listen(self) -> None:
        """Open the notification stream of the current session, and wait until it is open."""
        session = self.now
        if session is not None and session.token:
            self._stream = flight = Flight()
            opened = Event()
            Thread(target=self._listen, args=(session, flight, opened), daemon=True).start()
            opened.wait(OPENING_SECONDS)

    def _listen(self, session: Session, flight: Flight, opened: Event) -> None:
        pause = FIRST_PAUSE
        while self.now is session and not flight.given_up:
            try:
                status = self._followed(session, flight, opened)
                if status == NO_SESSION:
                    self.renew(session)
                if status in (NO_SESSION, NO_STREAM):
                    return
                if status == OK:
                    pause = FIRST_PAUSE
            except (UnreachedError, LostError) as error:
                if not flight.given_up:
                    self._note(f"the notification stream of {self._endpoint.url} closed ({error})")
            self._closing.wait(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    def _followed(self, session: Session, flight: Flight, opened: Event) -> int:
        headers = {**self._common, "Accept": "text/event-stream", **session.headers}
        with self._endpoint.exchange("GET", headers, None, flight) as response:
            opened.set()
            if response.status == OK:
                for data in events(response):
                    if responses.parsed(data):
                        self._say(data)
            else:
                whole(response)
            return response.status

    def end(self) -> None:
        """Close the session, if there is one."""
        session, self.now = self.now, None
        self._closing.set()
        self._stream.give_up()
        if session is None or not session.token:
            return
        headers = {**self._common, **session.headers}
        try:
            with self._endpoint.exchange(
                "DELETE", headers, None, Flight(), CLOSE_SECONDS
            ) as response:
                whole(response)
        except (UnreachedError, LostError) as error:
            self._note(f"the session could not be closed ({error})")
