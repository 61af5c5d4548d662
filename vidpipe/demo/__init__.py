"""The whole pipeline on videos that it draws itself: drawn, extracted, trained on, predicted, shown."""
