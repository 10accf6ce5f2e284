"""Registry of queries: the reply class of each query, and the query class of each subject."""

from collections.abc import Mapping
from types import MappingProxyType

from toolbus_common.contracts.base import Message
from toolbus_common.contracts.guards import ServiceVerdict
from toolbus_common.contracts.queries.administration import (
    AdminReply,
    AdminRequest,
    ExplainQuery,
    Explanation,
    OwnExplainQuery,
)
from toolbus_common.contracts.queries.approvals import (
    ApprovalsQuery,
    ApprovalsReply,
    ApproveRequest,
    ApproverRequest,
    RejectRequest,
)
from toolbus_common.contracts.queries.backfill import (
    BackfillLinesRequest,
    BackfillReply,
    BackfillRequest,
    FreezeReply,
    FreezeRequest,
)
from toolbus_common.contracts.queries.base import (
    AuditQuery,
    GuardChecksQuery,
    GuardQuery,
    LedgerQuery,
    LedgerReply,
    OpenCallsQuery,
    OpenCallsReply,
    Query,
    RebuildReply,
    RebuildRequest,
    RowsReply,
    ServersQuery,
    ServersReply,
    ServiceStatus,
    SessionsQuery,
    SessionsReply,
    SpendingQuery,
    SpendingReply,
    StatusQuery,
)
from toolbus_common.contracts.queries.export import EventsQuery, EventsReply
from toolbus_common.contracts.queries.identity import (
    Bearer,
    IdentityReply,
    IdentityRequest,
    PageReply,
    PageRequest,
    SignInLinkQuery,
    SignInLinkReply,
    TokenQuery,
)
from toolbus_common.contracts.queries.model_cache import (
    CachedResponsesQuery,
    CachedResponsesReply,
    PurgeCacheReply,
    PurgeCacheRequest,
)
from toolbus_common.contracts.queries.runs import (
    FlowRunsQuery,
    FlowRunsReply,
    OwnRunsRequest,
    ResetFlowRequest,
    RunsReply,
    RunsRequest,
)
from toolbus_common.contracts.queries.unresolved_calls import (
    UnresolvedCallsQuery,
    UnresolvedCallsReply,
)
from toolbus_common.contracts.queries.upstream_tokens import (
    IdentityKeyQuery,
    IdentityKeyReply,
    UpstreamTokenQuery,
    UpstreamTokenReply,
)

REPLIES: Mapping[type[Query], type[Message]] = MappingProxyType(
    {
        AdminRequest: AdminReply,
        ApprovalsQuery: ApprovalsReply,
        ApproveRequest: ApprovalsReply,
        ApproverRequest: ApprovalsReply,
        AuditQuery: RowsReply,
        BackfillLinesRequest: BackfillReply,
        BackfillRequest: BackfillReply,
        CachedResponsesQuery: CachedResponsesReply,
        EventsQuery: EventsReply,
        ExplainQuery: Explanation,
        FlowRunsQuery: FlowRunsReply,
        FreezeRequest: FreezeReply,
        GuardChecksQuery: RowsReply,
        GuardQuery: ServiceVerdict,
        IdentityKeyQuery: IdentityKeyReply,
        IdentityRequest: IdentityReply,
        SignInLinkQuery: SignInLinkReply,
        LedgerQuery: LedgerReply,
        OpenCallsQuery: OpenCallsReply,
        OwnExplainQuery: Explanation,
        OwnRunsRequest: RunsReply,
        PageRequest: PageReply,
        PurgeCacheRequest: PurgeCacheReply,
        RebuildRequest: RebuildReply,
        RejectRequest: ApprovalsReply,
        ResetFlowRequest: FlowRunsReply,
        RunsRequest: RunsReply,
        ServersQuery: ServersReply,
        SessionsQuery: SessionsReply,
        SpendingQuery: SpendingReply,
        StatusQuery: ServiceStatus,
        TokenQuery: Bearer,
        UnresolvedCallsQuery: UnresolvedCallsReply,
        UpstreamTokenQuery: UpstreamTokenReply,
    }
)
QUERIES: Mapping[str, type[Query]] = MappingProxyType({query.SUBJECT: query for query in REPLIES})
