"""How code is found in a document that is plain text (the documents themselves are run in tests/e2e)."""

from tests.support.documents import Block, python_blocks, run, with_our_import

TEXT = """Pools make things fast.
Creating
from tensorlake.sandbox import SandboxClient
client = SandboxClient()
pool = client.create_pool(
image="i",
warm=3 # three
)
print(f"Pool: {pool}")
no
# A comment — with a dash
one = client.create(pool_id=pool.pool_id)
| image | str |
for pool in pools:
print(f"{pool}")
print("after")
Then nothing.
# a comment without code
Name: value
import { SandboxClient } from "langsmith/experimental/sandbox";
const client = new SandboxClient();
// Create a pool
await client.createPool("python-pool", {
  templateName: "python-sandbox",
  size: 5,
});
Last
client = SandboxClient()

# kept over empty lines
client.delete_pool(
    "p",
)

The end."""


def test_the_code_is_found_and_nothing_else():
    assert [block.line for block in python_blocks(TEXT)] == [3, 11, 14, 28]


def test_a_block_is_kept_as_it_is():
    first, second, _, last = python_blocks(TEXT)
    assert first.source == "\n".join(TEXT.splitlines()[2:9]) + "\n"
    assert second.source == "\n".join(TEXT.splitlines()[10:12]) + "\n"
    assert last.source == "\n".join(TEXT.splitlines()[27:33]) + "\n"


def test_the_line_after_a_loop_is_indented_and_only_that():
    block = python_blocks(TEXT)[2]
    assert block.source == 'for pool in pools:\n    print(f"{pool}")\nprint("after")\n'
    assert run(block, {"pools": [1, 2]}) == ["1", "2", "after"]


def test_only_the_import_line_is_replaced():
    first = python_blocks(TEXT)[0]
    ours = with_our_import(first.source)
    assert ours.splitlines()[0] == "from sandpool import SandboxClient"
    assert ours.splitlines()[1:] == first.source.splitlines()[1:]


def test_names_live_on_from_block_to_block():
    namespace: dict[str, object] = {}
    run(Block(1, "a = 1"), namespace)
    assert run(Block(2, "print(a)"), namespace) == ["1"]
