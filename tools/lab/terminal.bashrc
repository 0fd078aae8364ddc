# Terminals of the course's JupyterLab: your own settings, then the course's commands first on the PATH.
if [ -r ~/.bashrc ]; then . ~/.bashrc; fi
export PATH="$ENGINEROOM_BIN:$PATH"
