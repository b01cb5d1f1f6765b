"""Pictures of items, corrupted by processes while this one embeds them.

The package of corruptions draws from one generator a process, so threads can't share the work. The processes give way
to the engine (`nice`), and read the pictures from one file in memory that this process has written.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from jaxtyping import Int

from pddm_lab.data.images import open_image
from pddm_lab.data.prepare import side_to_read
from pddm_lab.files import writing
from pddm_lab.model.features import parts_of
from pddm_lab.progress import Progress
from pddm_lab.robustness.corruptions import SIDE, square_of
from pddm_lab.robustness.worker import corrupted, start


class Pictures:
    """The squares of items, and what a network sees of them when they are corrupted. `Pictures.read` makes one.

    Args:
        file: of the squares, .npy.
        ids: of the items, in the file's order.
        network: shorter side and side of the square that the network sees; None: it takes the whole picture.
        processes: that corrupt; 1: this one does.
    """

    def __init__(self, file: Path, ids: Sequence[str], network: tuple[int, int] | None, processes: int) -> None:
        self.squares = np.load(file, mmap_mode="r")
        self._file, self._ids, self._network, self._processes = file, list(ids), network, processes

    @classmethod
    @contextmanager
    def read(
        cls, paths: Sequence[Path], ids: Sequence[str], network: tuple[int, int] | None, processes: int = 0,
        progress: Progress | None = None,
    ) -> Iterator[Pictures]:  # fmt: skip
        """Read the pictures of items; they stay in a temporary file while the block runs.

        Args:
            paths: of the images.
            ids: of the items, which seed their corruptions.
            network, processes: as for `Pictures`; 0 processes: one a core.
            progress: called as pictures are read.

        Raises:
            DataError: a picture can't be read.
            RunError: the temporary file can't be written.
        """
        processes = processes or joblib.cpu_count()
        with tempfile.TemporaryDirectory(prefix="pddm-lab-") as folder:
            file = Path(folder) / "squares.npy"
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(paths), SIDE, SIDE, 3)}
            # Not memory-mapped: a full disk would end the process without a word.
            with writing(file), open(file, "wb") as squares, ThreadPoolExecutor(joblib.cpu_count()) as pool:
                np.lib.format.write_array_header_1_0(squares, header)
                read = pool.map(lambda path: square_of(open_image(path, side_to_read(SIDE))), paths)
                for row, square in enumerate(read):
                    squares.write(np.ascontiguousarray(square).data)
                    if progress:
                        progress(row + 1, len(paths), "reading pictures")
            try:
                yield cls(file, ids, network, processes)
            finally:
                if processes > 1:
                    from joblib.externals.loky import get_reusable_executor

                    get_reusable_executor(reuse=True).shutdown(kill_workers=True)

    def corrupted(self, rows: Int[np.ndarray, " rows"], name: str, strength: int) -> Iterator[np.ndarray]:
        """What the network sees of corrupted pictures, some rows at a time, in their order.

        Args:
            rows: of the items.
            name, strength: as for `corrupt`; strength 0 leaves the pictures as they are.
        """
        parts = [rows[part] for part in parts_of(len(rows), self._processes)]
        tasks = [(self._file, part, [self._ids[row] for row in part], name, strength, self._network) for part in parts]
        if self._processes == 1 or strength == 0:
            yield from (corrupted(*task) for task in tasks)
            return
        options: dict[str, Any] = {"inner_max_num_threads": 1, "initializer": start, "initargs": (os.getpid(),)}
        with joblib.parallel_config(backend="loky", **options):
            parallel = joblib.Parallel(
                self._processes, return_as="generator", batch_size=1, pre_dispatch=3 * self._processes
            )
            yield from parallel(joblib.delayed(corrupted)(*task) for task in tasks)
