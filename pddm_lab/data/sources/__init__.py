"""Data sets, one file each; `pddm_lab.data.dataset` reads them by name."""
