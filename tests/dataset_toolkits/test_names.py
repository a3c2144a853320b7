from __future__ import annotations

import hashlib

from dataset_toolkits.names import MAX_LENGTH, safe_name, safe_names


def test_safe_name() -> None:
    assert safe_name("animals_pack/Fox v1.2+x-y") == "animals_pack__Fox_v1.2+x-y"
    assert safe_name("ünï/動画|a") == "_n___" + "__" + "_a"


def test_names_that_would_be_shared_get_a_hash() -> None:
    identifiers = ["a/b", "a__b", "A__B", "c"]
    hashes = [hashlib.sha256(identifier.encode()).hexdigest()[:8] for identifier in identifiers]
    assert safe_names(identifiers) == [f"a__b-{hashes[0]}", f"a__b-{hashes[1]}", f"A__B-{hashes[2]}", "c"]


def test_long_names_are_cut_and_stay_different() -> None:
    identifiers = ["https://" + "x" * 300 + end for end in ("1", "2")]
    names = safe_names(identifiers)
    assert [len(name) for name in names] == [MAX_LENGTH] * 2
    assert len(set(names)) == 2
