"""What `pyg-avig` answers without training: nothing here loads PyTorch before it is needed."""
