"""The tables of the migration guides and the names in the compatibility modules."""

import inspect
import re
from types import ModuleType

import pytest

import sandpool
from sandpool.compat import langsmith, tensorlake
from tests.support import documents
from tests.support.peer_table import PRODUCTS, TYPESCRIPT, guide, named, rows, sections

REFERENCE = documents.directory().parent / "reference" / "peer-apis.md"
MODULES: dict[str, ModuleType] = {"langsmith": langsmith, "tensorlake": tensorlake}


def find(product: str, name: str) -> list[object]:
    """Return what has a name: in a module, and in its classes. An attribute of a dataclass is its name."""
    module = MODULES[product]
    classes = [value for value in vars(module).values() if inspect.isclass(value)]
    found = [getattr(place, name) for place in (module, *classes) if hasattr(place, name)]
    return found + [name for place in classes if name in getattr(place, "__dataclass_fields__", {})]


def missing(thing: object, arguments: list[str]) -> set[str]:
    """Return the arguments that a function does not accept, or the attributes that an error does not have."""
    if inspect.isclass(thing):
        return {name for name in arguments if issubclass(thing, Exception) and not hasattr(thing("message"), name)}
    return set(arguments) - set(inspect.signature(thing).parameters) if callable(thing) else set()


@pytest.mark.parametrize("product", PRODUCTS)
def test_modules_have_every_name_that_the_guide_calls_the_same(product: str):
    same = [name for there, here in rows(product) if here.startswith("same") for name in named(there)]
    assert len(same) > 40
    for name, arguments in same:
        lacking = [missing(thing, arguments) for thing in find(product, name)]
        assert lacking, name
        assert set() in lacking, f"{name} does not have {lacking}"


@pytest.mark.parametrize("product", PRODUCTS)
def test_guides_give_a_reason_for_each_omission(product: str):
    reasons = set(re.findall(r"^- \*\*(.+?)\*\*", guide(product), re.MULTILINE))
    assert len(reasons) >= 2
    for there, here in rows(product, *sections(product)):
        assert here.startswith(("same", "renamed: ", "left out: ")), there
        for why in re.findall(r"left out: (.+?)(?:;|$)", here):
            assert why in reasons or len(why.split()) > 3, (there, why)


@pytest.mark.skipif(not REFERENCE.is_file(), reason="the list of the other products' names is not beside the clone")
def test_guides_contain_every_python_name_of_the_other_products():
    python = REFERENCE.read_text().partition("## Python")[2].partition("## TypeScript")[0]
    expected = set(re.findall(r"^- `(\w+)\(", python, re.MULTILINE)) | set(re.findall(r"`(\w+Error)", python))
    assert not expected - {name for product in PRODUCTS for there, _ in rows(product) for name, _ in named(there)}


@pytest.mark.skipif(not REFERENCE.is_file(), reason="the list of the other products' names is not beside the clone")
def test_guides_contain_every_typescript_name():
    typescript = REFERENCE.read_text().partition("\n## TypeScript")[2]
    expected = set(re.findall(r"\b([a-z]+[A-Z]?\w*)\(", typescript)) | set(re.findall(r"\b(\w+Volumes?)\b", typescript))
    for options in re.findall(r"\{([^}]*)\}", typescript):
        expected |= set(re.findall(r"\w+", options))
    found = {word for there, _ in rows("langsmith", TYPESCRIPT) for word in re.findall(r"\w+", there)}
    assert not expected - found - {"seeds", "size"}


@pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)
def test_modules_extend_the_core(module: ModuleType):
    for name in ("SandboxClient", "AsyncSandboxClient", "Sandbox", "AsyncSandbox"):
        assert issubclass(getattr(module, name), getattr(sandpool, name))
    assert not hasattr(sandpool, "compat") or "compat" not in sandpool.__all__
    for name in module.__all__:
        assert getattr(module, name) is not None


@pytest.mark.parametrize("product", PRODUCTS)
def test_modules_name_the_version_and_link_the_guide(product: str):
    text = MODULES[product].__doc__ or ""
    version = re.search(r"SDK (\d+\.\d+)", text)
    assert version is not None
    assert f"SDK {version[1]}" in guide(product)
    assert f"docs/how-to/migrate-from-{product}.md" in text
