"""Per-item outcomes from the events that real runtimes emit for each shape of extrinsic."""

import pytest

from raytensor.chain.calls import Call
from raytensor.chain.rpc.events import NOT_RUN, OK, Event, Outcome, count_items, fee, outcomes

SUCCESS = Event("System", "ExtrinsicSuccess", {"dispatch_info": {}})
ERROR = {"Module": {"index": 7, "error": "0x1d000000"}}
TOO_FAST = Outcome(False, ERROR)
SET = Call("SubtensorModule", "set_weights", {"netuid": 1})
REMARK = Call("System", "remark", {})
WEIGHTS_SET = Event("SubtensorModule", "WeightsSet", (1, 0))
DONE = Event("Utility", "ItemCompleted")
END = Event("Utility", "BatchCompleted")
END_ERRORS = Event("Utility", "BatchCompletedWithErrors")
PROXY_OK = Event("Proxy", "ProxyExecuted", {"result": {"Ok": ()}})
PROXY_ERR = Event("Proxy", "ProxyExecuted", {"result": {"Err": ERROR}})


def batch(function, *calls):
    return Call("Utility", function, {"calls": list(calls)})


def proxy(call):
    return Call("Proxy", "proxy", {"real": "5F", "force_proxy_type": None, "call": call})


def sudo(call):
    return Call("Sudo", "sudo", {"call": call})


def test_a_plain_call():
    assert outcomes(SET, [WEIGHTS_SET, SUCCESS]) == (OK,)
    failed = Event("System", "ExtrinsicFailed", {"dispatch_error": ERROR, "dispatch_info": {}})
    assert outcomes(SET, [failed]) == (TOO_FAST,)
    assert outcomes(SET, [Event("System", "ExtrinsicFailed", (ERROR, {}))]) == (TOO_FAST,)


def test_batch_stops_at_the_first_error_and_still_succeeds():
    interrupted = Event("Utility", "BatchInterrupted", {"index": 1, "error": ERROR})
    found = outcomes(batch("batch", SET, SET, SET), [WEIGHTS_SET, DONE, interrupted, SUCCESS])
    assert found == (OK, TOO_FAST, NOT_RUN)
    assert not found[2].run


def test_batch_all_succeeds_or_fails_as_a_whole():
    call = batch("batch_all", SET, SET)
    assert outcomes(call, [WEIGHTS_SET, DONE, WEIGHTS_SET, DONE, END, SUCCESS]) == (OK, OK)
    failed = Event("System", "ExtrinsicFailed", {"dispatch_error": "BadOrigin", "dispatch_info": {}})
    assert outcomes(call, [failed]) == (Outcome(False, "BadOrigin"),) * 2


def test_force_batch_goes_on_after_an_error():
    events = [DONE, Event("Utility", "ItemFailed", {"error": ERROR}), WEIGHTS_SET, DONE, END_ERRORS, SUCCESS]
    assert outcomes(batch("force_batch", SET, SET, SET), events) == (OK, TOO_FAST, OK)


def test_force_batch_of_proxied_calls_tells_the_inner_results():
    call = batch("force_batch", proxy(SET), proxy(SET), proxy(SET))
    not_proxy = Event("Utility", "ItemFailed", {"error": {"Module": {"index": 16, "error": "0x02000000"}}})
    events = [WEIGHTS_SET, PROXY_OK, DONE, PROXY_ERR, DONE, not_proxy, END_ERRORS, SUCCESS]
    assert outcomes(call, events) == (OK, TOO_FAST, Outcome(False, {"Module": {"index": 16, "error": "0x02000000"}}))


def test_native_batch_names_the_subnets_that_failed():
    call = Call("SubtensorModule", "batch_set_weights", {"netuids": [4, 5, 6]})
    events = [
        Event("SubtensorModule", "WeightsSet", (4, 0)),
        Event("SubtensorModule", "BatchCompletedWithErrors"),
        Event("SubtensorModule", "BatchWeightItemFailed", (5, ERROR)),
        Event("SubtensorModule", "WeightsSet", (6, 0)),
        Event("SubtensorModule", "BatchWeightsCompleted", ([4, 5, 6], "5F")),
        SUCCESS,
    ]
    assert outcomes(call, events) == (OK, TOO_FAST, OK)


def test_native_batch_inside_a_proxy_inside_a_batch():
    native = Call("SubtensorModule", "batch_set_weights", {"netuids": [4, 5]})
    call = batch("force_batch", proxy(native), proxy(SET))
    events = [
        Event("SubtensorModule", "BatchCompletedWithErrors"),
        Event("SubtensorModule", "BatchWeightItemFailed", {"netuid": 4, "error": ERROR}),
        Event("SubtensorModule", "BatchWeightsCompleted", ([4, 5], "5F")),
        PROXY_OK,
        DONE,
        PROXY_ERR,
        DONE,
        END,
        SUCCESS,
    ]
    assert count_items(call) == 3
    assert outcomes(call, events) == (TOO_FAST, OK, TOO_FAST)


def test_sudo_of_a_batch():
    call = sudo(batch("batch_all", REMARK, REMARK))
    ok = Event("Sudo", "Sudid", {"sudo_result": {"Ok": ()}})
    assert outcomes(call, [DONE, DONE, END, ok, SUCCESS]) == (OK, OK)
    error = Event("Sudo", "Sudid", {"sudo_result": {"Err": ERROR}})
    assert outcomes(call, [error, SUCCESS]) == (TOO_FAST, TOO_FAST)
    interrupted = Event("Utility", "BatchInterrupted", {"index": 0, "error": ERROR})
    assert outcomes(sudo(batch("batch", REMARK, REMARK)), [interrupted, ok, SUCCESS]) == (TOO_FAST, NOT_RUN)


def test_a_proxy_of_a_proxy_tells_whose_error_it_was():
    call = proxy(proxy(SET))
    assert outcomes(call, [PROXY_ERR, PROXY_OK, SUCCESS]) == (TOO_FAST,)  # the inner call failed
    assert outcomes(call, [PROXY_ERR, SUCCESS]) == (TOO_FAST,)  # the outer proxy's own call failed
    assert outcomes(call, [WEIGHTS_SET, PROXY_OK, PROXY_OK, SUCCESS]) == (OK,)


def test_thousands_of_items():
    calls = [SET] * 5000
    failed = Event("Utility", "ItemFailed", (ERROR,))
    events = [event for n in range(5000) for event in ([WEIGHTS_SET, DONE] if n % 7 else [failed])]
    found = outcomes(batch("force_batch", *calls), [*events, END_ERRORS, SUCCESS])
    assert [o.ok for o in found] == [bool(n % 7) for n in range(5000)]


def test_events_of_another_extrinsic_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        outcomes(batch("force_batch", SET, SET), [DONE, END, SUCCESS])
    with pytest.raises(ValueError, match="no ExtrinsicSuccess"):
        outcomes(SET, [WEIGHTS_SET])


def test_fee():
    paid = Event("TransactionPayment", "TransactionFeePaid", {"who": "5F", "actual_fee": 137051, "tip": 0})
    assert fee([paid, SUCCESS]) == 137051
    assert fee([SUCCESS]) == 0


def weights_batch(*netuids):
    return Call("SubtensorModule", "batch_set_weights", {"netuids": list(netuids)})


def test_a_failure_without_its_subnet_is_that_of_the_one_whose_weights_were_not_set():
    """Older runtimes: BatchWeightItemFailed has the error alone, and WeightsSet tells which were set."""
    failed = Event("SubtensorModule", "BatchWeightItemFailed", {"error": ERROR})
    some = Event("SubtensorModule", "BatchCompletedWithErrors")
    end = Event("SubtensorModule", "BatchWeightsCompleted", ([4, 5, 6], "5F"))
    sets = {netuid: Event("SubtensorModule", "WeightsSet", (netuid, 0)) for netuid in (4, 5, 6)}
    found = outcomes(weights_batch(4, 5, 6), [sets[4], failed, some, sets[6], end, SUCCESS])
    assert found == (OK, TOO_FAST, OK)
    found = outcomes(weights_batch(4, 5, 6), [failed, sets[5], failed, some, end, SUCCESS])
    assert found == (TOO_FAST, OK, TOO_FAST)
    # Without any sign of success the failure counts for all of them.
    assert outcomes(weights_batch(4, 5), [failed, some, end, SUCCESS]) == (TOO_FAST, TOO_FAST)
    # The same inside a force_batch of proxied calls, beside a plain call.
    call = batch("force_batch", proxy(weights_batch(4, 5)), SET)
    events = [sets[4], failed, some, end, PROXY_OK, DONE, WEIGHTS_SET, DONE, END, SUCCESS]
    assert outcomes(call, events) == (OK, TOO_FAST, OK)
