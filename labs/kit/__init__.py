"""What every lesson uses: exercise checks, progress, pictures, the list of lessons, the bill."""
