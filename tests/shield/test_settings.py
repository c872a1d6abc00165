import pytest

from bazaar.errors import UsageError
from bazaar.shield import settings
from bazaar.shield.settings import Mode, ShieldSpec


def test_rates_and_times_are_read_as_people_write_them() -> None:
    assert settings.rate("2000/s") == 2000
    assert settings.rate("120000/min") == 2000
    assert settings.rate(" 7 ") == 7
    assert settings.seconds("90") == 90
    assert settings.seconds("1.5m") == 90
    assert settings.seconds("2h") == 7200


@pytest.mark.parametrize("text", ["", "fast", "-1/s", "1/h", "1e9", "9" * 40])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        settings.rate(text)


@pytest.mark.parametrize("text", ["", "soon", "-1s", "1w", "1,5m"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        settings.seconds(text)


def test_modes_go_to_text_and_back() -> None:
    assert [Mode.of(mode.text) for mode in Mode] == list(Mode)
    with pytest.raises(UsageError):
        Mode.of("maybe")


def test_a_shield_that_makes_no_sense_is_refused() -> None:
    for wrong in ({"rate": 0}, {"burst": 0}, {"block_seconds": 0}, {"mode": "maybe"}):
        with pytest.raises(UsageError):
            ShieldSpec(**wrong)  # type: ignore[arg-type]
    assert ShieldSpec(rate=10).depth == 20
    assert ShieldSpec(rate=10, burst=3).depth == 3
