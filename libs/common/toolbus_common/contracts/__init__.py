"""Everything rooms say to each other: typed messages, each with its one subject."""

from toolbus_common.contracts.calls import CallAdmitted, CallRequested, Era
from toolbus_common.contracts.catalogue import Listing, ServerState, Tool
from toolbus_common.contracts.facts import (
    FACTS,
    BreakerClosed,
    BreakerOpened,
    CallAllowed,
    CallCompleted,
    CallDenied,
    CallFact,
    CallFailed,
    ConfigApplied,
    Fact,
    KeyCreated,
    KeyRevoked,
    ServerConnected,
    ServerLost,
)
from toolbus_common.contracts.frames import Answered, Failed, Frame, Progressed, decode_frame
from toolbus_common.contracts.message import Message
from toolbus_common.contracts.questions import (
    AuditQueried,
    Question,
    RoomStatus,
    RowsFound,
    ServersAsked,
    ServersTold,
    StatusAsked,
)

__all__ = [
    "FACTS",
    "Answered",
    "AuditQueried",
    "BreakerClosed",
    "BreakerOpened",
    "CallAdmitted",
    "CallAllowed",
    "CallCompleted",
    "CallDenied",
    "CallFact",
    "CallFailed",
    "CallRequested",
    "ConfigApplied",
    "Era",
    "Fact",
    "Failed",
    "Frame",
    "KeyCreated",
    "KeyRevoked",
    "Listing",
    "Message",
    "Progressed",
    "Question",
    "RoomStatus",
    "RowsFound",
    "ServerConnected",
    "ServerLost",
    "ServerState",
    "ServersAsked",
    "ServersTold",
    "StatusAsked",
    "Tool",
    "decode_frame",
]
