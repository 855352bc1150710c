"""Memory that is lent again, and never while somebody holds it."""

import gc
import threading

import pytest
import torch

from gerbil_tune.buffers import BufferPool


@pytest.mark.parametrize("dtype", [torch.int16, torch.float32])
def test_shape_and_type(dtype):
    tensor = BufferPool().empty((3, 5, 2), dtype)
    assert tensor.shape == (3, 5, 2)
    assert tensor.dtype == dtype
    assert tensor.is_contiguous()


def test_memory_that_nobody_holds_is_used_again():
    pool = BufferPool()
    tensor = pool.empty((100, 4), torch.float32)
    place = tensor.data_ptr()
    del tensor
    gc.collect()
    assert pool.empty((50, 4), torch.float32).data_ptr() == place
    assert pool.empty((100, 8), torch.int16).data_ptr() == place


@pytest.mark.parametrize(
    "holder",
    [
        lambda tensor: tensor[3:4],
        lambda tensor: tensor.transpose(0, 1),
        lambda tensor: tensor.numpy(),
        lambda tensor: tensor.numpy()[2],
        lambda tensor: memoryview(tensor.numpy()[5]),
        lambda tensor: tensor.detach(),
    ],
)
def test_memory_that_is_held_in_any_way_is_left_alone(holder):
    pool = BufferPool()
    tensor = pool.empty((100, 4), torch.float32)
    place = tensor.data_ptr()
    held = holder(tensor)
    del tensor
    gc.collect()
    others = [pool.empty((100, 4), torch.float32) for _ in range(20)]
    assert place not in [other.data_ptr() for other in others]
    assert len({other.data_ptr() for other in others}) == 20
    del held
    gc.collect()


def test_more_is_lent_than_is_kept():
    pool = BufferPool()
    tensors = [pool.empty((10,), torch.float32).fill_(number) for number in range(50)]
    assert [tensor.unique().tolist() for tensor in tensors] == [[number] for number in range(50)]


def test_threads_do_not_get_the_same_memory():
    pool, wrong = BufferPool(), []

    def work(number):
        for _ in range(200):
            tensor = pool.empty((1000,), torch.float32).fill_(number)
            if not bool((tensor == number).all()):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
