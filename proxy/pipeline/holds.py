"""Orchestrates: the budgets of one attempt: its hold is granted, made smaller, or refused, before its request is built.

bound -> ledger.open, intend -> granted
  refused, and others hold money   waits for one of them to end, at most WAIT_S per call
  refused                          requests the longest answer that fits, of at least LEAST_TOKENS
  refused, or that is too short    BudgetSpent: another candidate, a downgrade, or 429
"""

from __future__ import annotations

from collections.abc import Callable

from proxy.metering.charges import Budgets
from proxy.metering.ledger import Ledger
from proxy.metering.standing import moment
from proxy.pipeline.attempt import Attempt
from proxy.pipeline.call import Call
from proxy.routing.ask import Origin
from proxy.routing.deployment import Deployment
from proxy.routing.plan import ask_bound, attempt_bound
from proxy.schema.endpoints import AnyRequest
from proxy.schema.errors import BudgetSpent, CostLimit
from proxy.schema.records import NANO_PER_USD
from proxy.storage.base import BudgetRefused, Room
from proxy.storage.spending import IDLE_DAYS

LEAST_TOKENS = 256  # of a shortened answer
USEFUL_TOKENS = 1024  # of a shortened answer if the call could be downgraded instead
SHARE = 8  # a shortened answer may cost an eighth of what is left, so that it does not starve concurrent calls
UNLIMITED_TOKENS = 4096  # used if neither the request nor pricing.yaml limits the answer, so that its cost has a bound


class Holds:
    """Opens the attempts of calls on one configuration."""

    def __init__(self, ledger: Ledger, budgets: Budgets, config_version: str) -> None:
        self.budgets = budgets
        self._ledger = ledger
        self._config_version = config_version

    async def open(self, call: Call, deployment: Deployment, request: AnyRequest, origin: Origin) -> Attempt:
        """A new attempt with a committed intent row, for the request or a shorter answer to it.

        If this raises, nothing was sent: CostLimit, BudgetSpent, or StorageUnavailable.
        """
        is_shortened = False
        while True:
            bound_nano = attempt_bound(request, deployment)
            if call.limits_cost and (refusal := call.refusal(deployment.name, bound_nano)) is not None:
                raise refusal
            attempt = Attempt(call, deployment, request, origin)
            if not self.budgets.is_empty:
                self._charge(attempt)
                if bound_nano is None and attempt.is_charged:
                    request, bound_nano = self._bounded(call, deployment, request)
                    attempt.request = request
            try:
                await self._grant(attempt, bound_nano)
            except BudgetRefused as refused:
                if _is_seat(call, request):  # all seats are shortened, or none
                    raise spent(refused.room, self.budgets.config.message) from None
                if await self._may_fit_now(call, request, refused.room, bound_nano or 0):
                    continue
                shorter = shortened(
                    request,
                    refused.room,
                    lambda each: attempt_bound(each, deployment),
                    call.may_downgrade,
                    is_shortened,
                )
                if shorter is None:
                    raise spent(refused.room, self.budgets.config.message) from None
                request, names = shorter
                is_shortened = True
                call.note_adapted(names)
            else:
                return attempt

    async def shortened_for_seats(
        self, call: Call, deployment: Deployment, request: AnyRequest, error: BudgetSpent
    ) -> AnyRequest:
        """The request to retry after one of its seats was refused: the same, or for shorter answers. Raises `error` if
        no retry can help.
        """
        room = error.room
        if call.attempts or not isinstance(room, Room):
            raise error
        if await self._may_fit_now(call, request, room, call.bound_nano):
            return request
        shorter = shortened(
            request, room, lambda each: ask_bound(each, deployment), call.may_downgrade, bool(call.adapted)
        )
        if shorter is None:
            raise error
        call.note_adapted(shorter[1])
        call.bound_nano = ask_bound(shorter[0], deployment) or 0
        return shorter[0]

    def _charge(self, attempt: Attempt) -> None:
        call, deployment = attempt.call, attempt.deployment
        if not call.is_open:
            call.charges = self.budgets.of_call(call.caller.key_id, call.labels, call.opened_ns)
            call.charges_failed = self.budgets.config.charge_failed
        attempt.charges = self.budgets.of_attempt(deployment.provider_name, deployment.name, call.opened_ns)

    async def _grant(self, attempt: Attempt, bound_nano: int | None) -> None:
        call, opening = attempt.call, attempt.opening(bound_nano)
        call.attempts.append(attempt)
        is_first, call.is_open = not call.is_open, True
        try:
            if is_first:
                await self._ledger.open(call.opening(self._config_version), opening)
            else:
                await self._ledger.intend(opening)
        except BaseException:
            attempt.note_withdrawn()
            call.attempts.remove(attempt)
            if is_first:
                call.is_open = False
            raise
        attempt.note_granted()
        if call.on_open is not None:
            call.on_open()

    def _bounded(self, call: Call, deployment: Deployment, request: AnyRequest) -> tuple[AnyRequest, int | None]:
        """The request without optional work at the vendor, then with an answer of limited length, if that bounds its
        cost. Raises CostLimit if not.
        """
        if deployment.price is not None and not request.hints.strict:
            plain, left_out = request.without_offers()
            shorter, names = plain.capped(UNLIMITED_TOKENS)
            for each, changed in ((plain, left_out), (shorter, [*left_out, *names])):
                if (bound_nano := attempt_bound(each, deployment)) is not None:
                    call.note_adapted(changed)
                    return each, bound_nano
        if self.budgets.config.unknown_price == "allow":
            return request, None
        price = deployment.price
        if price is None or price.input is None or price.output is None:
            why, mend = "has no known price", "Add its price to pricing.yaml"
        else:
            why = "has no upper bound for the cost of this request"
            mend = (
                "Its row in pricing.yaml can set limits: max_extra_usd and max_searches for what the vendor fetches, "
                "max_output and context for the rest"
            )
        message = f"{deployment.name} {why}, so no budget can cover it. {mend}, or set budget.unknown_price: allow."
        raise CostLimit(message, "price_unknown", param="model")

    async def _may_fit_now(self, call: Call, request: AnyRequest, room: Room, bound_nano: int) -> bool:
        """True if a retry may help: nothing is held for fallbacks any more, or other calls returned money."""
        if not call.is_open and call.bound_nano > bound_nano and not _is_seat(call, request):
            call.bound_nano = 0  # a fallback requests its own hold once it is needed
            return True
        return await self.may_be_freed(call, room)

    async def may_be_freed(self, call: Call, room: Room) -> bool:
        """Waits, within the call's time for that, for other calls to return money. True if they may have."""
        if room.held_nano <= 0 or call.budget_wait_s <= 0:
            return False
        began = call.clock.monotonic_s()
        await self._ledger.freed(call.budget_wait_s)
        call.budget_wait_s -= call.clock.monotonic_s() - began
        return True


def _is_seat(call: Call, request: AnyRequest) -> bool:
    """True for one of several requests that together make up a call's choices, or that an ensemble asks. All of them
    fit the budget, or the call asks for less.
    """
    return request.n != call.request.n or (call.seated is not None and not call.attempts)


def shortened(
    request: AnyRequest, room: Room, bound_of: Callable[[AnyRequest], int | None], may_downgrade: bool, is_again: bool
) -> tuple[AnyRequest, list[str]] | None:
    """The request with the longest answer that fits the budget, and the names of the fields that limit it.

    None: that answer would be too short, or the request already asks for a short one.

    `is_again`: it was shortened before and still did not fit, because other calls were faster.
    """
    if request.hints.strict:
        return None
    given = request.output_limit(None)
    limit = given // request.n if given else None
    longest = 2 * USEFUL_TOKENS if limit is None else limit
    if longest <= LEAST_TOKENS:
        return None
    now, lowest, highest = bound_of(request), bound_of(request.capped(1)[0]), bound_of(request.capped(longest)[0])
    if lowest is None or highest is None or highest <= lowest:
        return None
    each = -(-(highest - lowest) // (longest - 1))  # nano-USD per token of each choice
    held_already = 0 if now is None else max(0, now - room.bound_nano)
    most = room.left_nano + held_already - lowest
    fair = max(LEAST_TOKENS, 1 + (room.left_nano // SHARE + held_already - lowest) // each)
    tokens = min(fair, (limit - 1 if limit is not None else fair))
    if is_again and limit is not None:
        tokens = max(LEAST_TOKENS, min(tokens, limit // 2))
    least = USEFUL_TOKENS if may_downgrade and room.is_soft else LEAST_TOKENS
    if tokens < least or each * (tokens - 1) > most:
        return None
    return request.capped(tokens)


def spent(room: Room, message: str | None) -> BudgetSpent:
    """The error of a budget without room, with the operator's own words if there are any."""
    charge = room.charge
    figures = {
        "budget": charge.budget,
        "limit_usd": room.limit_nano / NANO_PER_USD,
        "spent_usd": room.spent_nano / NANO_PER_USD,
        "held_usd": room.held_nano / NANO_PER_USD,
        "bound_usd": room.bound_nano / NANO_PER_USD,
        "resets_at": moment(charge.resets_ns),
    }
    again = "It does not reset." if charge.resets_ns is None else f"It resets at {figures['resets_at']}."
    if charge.resets_ns is None and charge.budget.startswith("session "):
        again = f"It resets once the session has used nothing for {IDLE_DAYS} days."
    text = (
        f"The budget {charge.budget!r} has no room: ${figures['limit_usd']:g} allowed, ${figures['spent_usd']:.6f} "
        f"spent, ${figures['held_usd']:.6f} held by running calls, and this call could cost "
        f"${figures['bound_usd']:.6f} more. {again}"
    )
    error = BudgetSpent(f"{message} {text}" if message else text, figures)
    error.is_soft, error.is_of_attempt, error.downgrade_to = room.is_soft, room.is_of_attempt, charge.downgrade_to
    error.room = room
    return error
