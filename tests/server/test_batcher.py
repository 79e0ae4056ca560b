"""Tests of lookonce.server.batcher: the network is a function whose calls the test holds back and lets go."""

import asyncio
import threading

import pytest

from lookonce.server.batcher import Batcher, ClosedError, QueueFullError


class Network:
    """Doubles numbers; a call ends when the test opens the gate. Remembers its batches."""

    def __init__(self, is_open=True):
        self.gate, self.batches = threading.Event(), []
        if is_open:
            self.gate.set()

    def __call__(self, batch):
        self.batches.append(list(batch))
        assert self.gate.wait(20)
        if -1 in batch:
            raise ValueError("minus one")
        return [2 * each for each in batch]


def prepare(number):
    if number == "bad":
        raise ValueError("bad")
    return number


def batcher(network, batch=4, queue=8):
    return Batcher(prepare, network, batch=batch, queue=queue, threads=2)


async def until(condition):
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("never came true")


async def busy(made, network):
    """Let the network run one image."""
    tasks = [asyncio.create_task(made.submit([100], 20))]
    await until(lambda: len(network.batches) == 1)
    return tasks


def answers(found):
    return [each.answer for each in found]


def test_answers_come_in_the_order_of_the_images():
    async def go():
        made = batcher(Network())
        assert answers(await made.submit([3, 1, 2], 20)) == [6, 2, 4]
        assert made.waiting == 0
        await made.close()

    asyncio.run(go())


def test_what_waits_together_runs_together_up_to_the_batch():
    async def go():
        network = Network(is_open=False)
        made = batcher(network)
        first = await busy(made, network)
        later = [asyncio.create_task(made.submit([n], 20)) for n in range(6)]
        await until(lambda: made.waiting == 6 and len(made._ready) == 6)
        network.gate.set()
        found = [answers(await each) for each in later]
        assert found == [[0], [2], [4], [6], [8], [10]]
        assert [len(batch) for batch in network.batches[1:]] == [4, 2]  # two threads prepare them, in any order
        assert sorted(sum(network.batches[1:], [])) == list(range(6))  # noqa: RUF017
        assert sorted([(await each)[0].batch for each in later]) == [2, 2, 4, 4, 4, 4]
        await asyncio.gather(*first)

    asyncio.run(go())


def test_what_is_being_prepared_joins_the_batch_until_it_has_half_of_what_waits():
    """The network is free and one image of four is ready; the others come within the time of a batch."""
    gates = [threading.Event() for _ in range(4)]

    def prepared(number):
        assert gates[number].wait(20)
        return number

    async def go():
        network = Network()
        made = Batcher(prepared, network, batch=4, queue=8, threads=4)
        made._seconds = 5.0
        tasks = [asyncio.create_task(made.submit([n], 20)) for n in range(4)]
        await until(lambda: made.waiting == 4)
        gates[0].set()
        await until(lambda: len(made._ready) == 1)
        assert not network.batches
        for gate in gates:
            gate.set()
        assert [answers(each) for each in await asyncio.gather(*tasks)] == [[0], [2], [4], [6]]
        assert len(network.batches[0]) >= 2
        await made.close()

    asyncio.run(go())


def test_nothing_waits_longer_than_a_batch_takes_for_what_is_being_prepared():
    slow = threading.Event()

    def prepared(number):
        if number:
            assert slow.wait(20)
        return number

    async def go():
        made = Batcher(prepared, Network(), batch=3, queue=8, threads=3)
        made._seconds = 0.01
        late = asyncio.create_task(made.submit([1], 20))
        assert answers(await made.submit([0], 20)) == [0]
        slow.set()
        assert answers(await late) == [2]
        await made.close()

    asyncio.run(go())


def test_a_request_that_finds_no_place_is_refused_at_once_and_none_of_it_is_admitted():
    async def go():
        network = Network(is_open=False)
        made = batcher(network, queue=3)
        tasks = await busy(made, network)
        tasks.append(asyncio.create_task(made.submit([1, 2], 20)))
        await until(lambda: made.waiting == 2)
        assert not made.is_full
        with pytest.raises(QueueFullError) as refused:
            await made.submit([3, 4], 20)
        assert refused.value.retry_after >= 1
        assert made.waiting == 2
        tasks.append(asyncio.create_task(made.submit([3], 20)))
        await until(lambda: made.is_full)
        network.gate.set()
        assert [answers(each) for each in await asyncio.gather(*tasks)][-2:] == [[2, 4], [6]]

    asyncio.run(go())


def test_past_its_deadline_an_image_never_runs_and_frees_its_place():
    async def go():
        network = Network(is_open=False)
        made = batcher(network)
        tasks = await busy(made, network)
        with pytest.raises(TimeoutError):
            await made.submit([7], 0.05)
        assert made.waiting == 0
        network.gate.set()
        await asyncio.gather(*tasks)
        await made.close()
        assert [7] not in network.batches

    asyncio.run(go())


def test_a_cancelled_request_frees_its_place():
    async def go():
        network = Network(is_open=False)
        made = batcher(network)
        tasks = await busy(made, network)
        gone = asyncio.create_task(made.submit([7, 8], 20))
        await until(lambda: len(made._ready) == 2)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert made.waiting == 0
        network.gate.set()
        await asyncio.gather(*tasks)
        assert len(network.batches) == 1

    asyncio.run(go())


@pytest.mark.parametrize("images", [["bad"], [1, "bad", 2], [-1], [5, -1]])
def test_an_error_goes_to_its_request_and_the_batcher_goes_on(images):
    async def go():
        made = batcher(Network())
        with pytest.raises(ValueError):
            await made.submit(images, 20)
        assert answers(await made.submit([5], 20)) == [10]
        assert made.waiting == 0
        await made.close()

    asyncio.run(go())


def test_closing_answers_what_is_admitted_and_refuses_the_rest():
    async def go():
        network = Network(is_open=False)
        made = batcher(network)
        tasks = await busy(made, network)
        tasks.append(asyncio.create_task(made.submit([1, 2, 3], 20)))
        await until(lambda: made.waiting == 3)
        closing = asyncio.create_task(made.close())
        await asyncio.sleep(0)
        with pytest.raises(ClosedError):
            await made.submit([4], 20)
        assert not closing.done()
        network.gate.set()
        await closing
        assert answers(tasks[-1].result()) == [2, 4, 6]

    asyncio.run(go())
