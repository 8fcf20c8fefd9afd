"""What happens alongside the training: measurements, files, pictures, the progress bar."""
