"""Methods of metric learning side by side: the same features, batches, steps and selection for all of them."""

from pddm_lab.study.cells import Study, key_of, list_studies, table

__all__ = ["Study", "key_of", "list_studies", "table"]
