"""The small languages of a description: each value has one normal form, or a message."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bazaar.spec import values

ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.lists(st.text()),
    st.dictionaries(st.text(), st.integers()),
    st.from_regex(values.MEMORY),
    st.from_regex(values.DURATION),
    st.from_regex(values.RATE),
    st.from_regex(values.ADDRESS_AND_PORT),
)
READERS = (
    values.label,
    values.text,
    values.line,
    values.port,
    values.cores,
    values.memory,
    values.duration,
    values.rate,
    values.bazaar_subnet,
    values.site_subnet,
    values.allowed,
    values.published,
    values.inside,
    values.variable,
    values.command,
)


@pytest.mark.parametrize(
    ("read", "value", "normal"),
    [
        (values.memory, "256M", "256M"),
        (values.memory, "1024M", "1G"),
        (values.memory, "0.5G", "512M"),
        (values.memory, "256MiB", "256M"),
        (values.memory, 268435456, "256M"),
        (values.duration, "60s", "60s"),
        (values.duration, "1m", "60s"),
        (values.duration, 1.5, "1500ms"),
        (values.duration, "0.25s", "250ms"),
        (values.rate, 2000, "2000/s"),
        (values.rate, "600/m", "600/m"),
        (values.published, 8080, "127.0.0.1:8080"),
        (values.published, "8080", "127.0.0.1:8080"),
        (values.published, "0.0.0.0:80", "0.0.0.0:80"),
        (values.allowed, "192.0.2.7", "192.0.2.7/32"),
        (values.allowed, "2001:db8::/32", "2001:db8::/32"),
        (values.inside, "/var//lib/", "/var/lib"),
        (values.command, "sh -c 'echo a b'", ("sh", "-c", "echo a b")),
        (values.command, ["sleep", 1], ("sleep", "1")),
        (values.site_subnet, "10.1.2.0/24", "10.1.2.0/24"),
    ],
)
def test_normal_form(read, value, normal):
    assert read(value) == normal


@pytest.mark.parametrize(
    ("read", "value", "message"),
    [
        (values.memory, "lots", "'lots' is not a size of memory such as 256M or 1G"),
        (values.memory, "1K", "'1K' is not a size of memory from 4M to 1024T"),
        (values.memory, True, "true is not a size of memory such as 256M or 1G"),
        (values.duration, "soon", "'soon' is not a duration such as 500ms, 60s or 5m, up to 24h"),
        (values.duration, 0, "0 is not a duration such as 500ms, 60s or 5m, up to 24h"),
        (values.rate, "2000", "'2000' is not a rate above 0 such as 2000/s"),
        (values.port, 0, "0 is not a port, a whole number from 1 to 65535"),
        (values.port, "80", "'80' is not a port, a whole number from 1 to 65535"),
        (values.published, "8080:80", "'8080:80' is not a port of the host such as 8080"),
        (values.published, "300.1.1.1:80", "'300.1.1.1:80' is not a port of the host"),
        (values.inside, "/a/../b", "'/a/../b' is not an absolute path inside the container"),
        (values.inside, "data", "'data' is not an absolute path inside the container"),
        (values.inside, "/", "'/' is not an absolute path inside the container"),
        (values.label, "Apache", "'Apache' is no name: up to 63 lower-case letters"),
        (values.label, "-a", "'-a' is no name"),
        (values.label, "a\n", "'a\\n' is no name"),
        (values.label, 5, "5 is no name"),
        (values.command, "sh 'oops", "'sh 'oops' is not a command: no closing quotation"),
        (values.command, [], "an empty command; leave it out for the image's own"),
        (values.site_subnet, "10.1.2.3/24", "'10.1.2.3/24' is not a network such as"),
        (values.site_subnet, "8.8.8.0/24", "'8.8.8.0/24' is not a private network of /24"),
        (values.bazaar_subnet, "10.1.2.0/24", "'10.1.2.0/24' is not a private network of /16"),
        (values.cores, 0, "0 is not a number of cores above 0, such as 0.5 or 2"),
        (values.variable, "A-B", "'A-B' is not a variable's name: letters, digits and '_'"),
        (values.text, "a\0b", "text with a NUL character, which no program can be given"),
    ],
)
def test_message(read, value, message):
    with pytest.raises(ValueError) as caught:
        read(value)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
@given(value=ANYTHING)
def test_any_value_has_a_normal_form_that_stays_or_a_message(read, value):
    try:
        normal = read(value)
    except ValueError as error:
        assert str(error)
    else:
        assert read(list(normal) if isinstance(normal, tuple) else normal) == normal


@given(value=ANYTHING)
def test_whole_accepts_what_lies_between_alone(value):
    try:
        assert 1 <= values.whole(value, 1, 100) <= 100
        assert isinstance(value, int) and not isinstance(value, bool)
    except ValueError as error:
        assert "is not a whole number" in str(error)


def test_sizes_durations_and_rates_as_numbers():
    assert values.memory_bytes("256M") == 256 << 20
    assert values.duration_seconds("500ms") == 0.5
    assert values.rate_per_second("600/m") == 10.0


@given(value=ANYTHING)
def test_shown_values_are_short_and_printable(value):
    shown = values.show(value)
    assert len(shown) < 1000
    assert "\n" not in shown
    assert "\0" not in shown
