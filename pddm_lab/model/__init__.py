"""From images to similarities: trunks, features, the embedding, the PDDM unit and its rivals."""
