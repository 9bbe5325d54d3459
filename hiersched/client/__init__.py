"""What users hold: clients, views of engines, results, an executor and a joblib backend."""
