PS4='--> '
set -ex
PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 pip3 install --no-input --no-cache-dir git 'a '\''b'\'' $c'
