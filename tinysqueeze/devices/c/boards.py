"""Which common boards a network fits: flash for its constants, RAM for its arena."""

from dataclasses import dataclass

KIB, MIB = 1 << 10, 1 << 20
CODE = 8 * KIB  # flash for the loops, generously
RESERVE = 32 * KIB  # RAM for the stack and whatever else the program does


@dataclass(frozen=True)
class Board:
    """A board by its makers' data sheets. RAM is what one static array can use on the chip itself."""

    name: str
    chip: str
    flash: int
    ram: int
    remark: str = ""


BOARDS = (
    Board("Arduino Nano 33 BLE", "nRF52840", 1 * MIB, 256 * KIB),
    Board("Raspberry Pi Pico", "RP2040", 2 * MIB, 264 * KIB),
    Board("Raspberry Pi Pico 2", "RP2350", 4 * MIB, 520 * KIB),
    Board("ESP32-S3-DevKitC N16R8", "ESP32-S3", 16 * MIB, 512 * KIB, "8 MiB of PSRAM besides"),
    Board("Nucleo-H743ZI", "STM32H743", 2 * MIB, 512 * KIB, "1 MiB in all, 512 KiB in one piece"),
    Board("Teensy 4.1", "i.MX RT1062", 7936 * KIB, 512 * KIB, "1 MiB in all, in two pieces"),
    Board("OpenMV Cam H7 Plus", "STM32H743", 32 * MIB, 32 * MIB, "SDRAM and external flash"),
    Board("Raspberry Pi Zero 2 W", "RP3A0", 1024 * MIB, 512 * MIB, "Linux; flash is an SD card"),
)


def fits(board: Board, flash: int, ram: int) -> bool:
    """True where constants, code, arena and a reserve find room."""
    return flash + CODE <= board.flash and ram + RESERVE <= board.ram


def table(flash: int, ram: int) -> str:
    """A line for each board, with what is left over or missing."""
    lines = [
        f"{'board':<24}{'chip':<14}{'flash KiB':>11}{'RAM KiB':>10}  fits?",
        f"{'needed':<24}{'':<14}{(flash + CODE) / KIB:>11,.0f}{(ram + RESERVE) / KIB:>10,.0f}",
    ]
    for board in BOARDS:
        verdict = "yes" if fits(board, flash, ram) else _missing(board, flash, ram)
        remark = f" ({board.remark})" if board.remark else ""
        lines.append(
            f"{board.name:<24}{board.chip:<14}{board.flash / KIB:>11,.0f}{board.ram / KIB:>10,.0f}  "
            f"{verdict}{remark}"
        )
    return "\n".join(lines)


def _missing(board: Board, flash: int, ram: int) -> str:
    lacks = {"flash": flash + CODE - board.flash, "RAM": ram + RESERVE - board.ram}
    return "no: lacks " + " and ".join(
        f"{size / KIB:,.0f} KiB of {kind}" for kind, size in lacks.items() if size > 0
    )
